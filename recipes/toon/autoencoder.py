"""The autoencoder: 128 px pictures to 16 x 16 latents of 12 channels and back (diffusers `AutoencoderKL`).

python autoencoder.py train      encoder and decoder together
python autoencoder.py freeze     normalise the latents, then write those of all training pictures
python autoencoder.py further    go on with encoder and decoder, the latents held near those a denoiser knows
python autoencoder.py adopt      take what went on in the frozen one's place, and write the latents anew
python autoencoder.py decoder    go on with the decoder alone; the latents stay what they are
"""

from __future__ import annotations

import argparse
import copy
import shutil
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from data import (
    DEVICE,
    SIZE,
    Pictures,
    Shards,
    half_precision,
    halved,
    latent_file,
    picture_files,
    random_crops,
    read_latents,
    to_signed,
    work_folder,
    write_array,
)
from loop import Average, Peer, Run, one_thread
from muon import Optimiser

WIDTHS = (16, 32, 64, 128)
CHANNELS = 12
FACTOR = 8
"""Pixels per latent cell and side."""
AT_ONCE = 8 if DEVICE.type == "cpu" else 200
"""Pictures encoded together: a processor's caches hold no more, 49 a second then, 24 at 50 together."""
SHIPPED = Path(__file__).parents[2] / "src" / "personae" / "embedded" / "bases" / "toon" / "vae"


def build() -> AutoencoderKL:
    """A new autoencoder. Attention is left out: the middle is 16 x 16 and the decoder has to stay fast."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=WIDTHS,
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=8,
        sample_size=SIZE,
        scaling_factor=1.0,
        mid_block_add_attention=False,
    )


def start() -> AutoencoderKL:
    """The shipped autoencoder where there is one, else a new one."""
    return AutoencoderKL.from_pretrained(SHIPPED, dtype=torch.float32) if SHIPPED.exists() else build()


def edges(pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Differences between neighbouring pixels, across and down."""
    return pictures.diff(dim=-1), pictures.diff(dim=-2)


def picture_loss(drawn: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Mean absolute error of pixels and of edges (which keeps lines crisp), and squared error."""
    loss = F.l1_loss(drawn, real) + F.mse_loss(drawn, real)
    return loss + sum(F.l1_loss(a, b) for a, b in zip(edges(drawn), edges(real), strict=False))


def joint_loss(
    model: AutoencoderKL, real: torch.Tensor, options: argparse.Namespace, small: bool, anchor: AutoencoderKL | None
) -> dict[str, torch.Tensor]:
    """Losses of one batch. `small` asks that latents averaged 2 x 2 decode to the picture at half size.

    That makes latents smooth, as pictures are, which a denoiser learns faster (EQ-VAE, arXiv 2502.09509).
    `anchor` is an earlier autoencoder whose latents a denoiser already knows: the new ones are held near them.
    """
    with half_precision():
        posterior = model.encode(real).latent_dist
        latents, target = posterior.sample(), real
        if small:
            latents, target = F.avg_pool2d(latents, 2), halved(real)
        drawn = model.decode(latents).sample.float()
    picture = picture_loss(drawn, target)
    kl = 0.5 * (posterior.mean.float() ** 2 + posterior.var.float() - 1 - posterior.logvar.float()).mean()
    loss, parts = picture + options.kl * kl, {"picture": picture, "kl": kl}
    if anchor is not None:
        parts["moved"] = F.mse_loss(posterior.mean.float(), encode(anchor, real))
        loss = loss + options.anchor * parts["moved"]
    return {"loss": loss} | parts


@torch.no_grad()
def encode(model: AutoencoderKL, pictures: torch.Tensor) -> torch.Tensor:
    """The latents' means, B x C x side / 8 x side / 8."""
    with half_precision():
        return model.encode(pictures).latent_dist.mean.float()


@torch.no_grad()
def decode(model: AutoencoderKL, latents: torch.Tensor) -> torch.Tensor:
    """Pictures in [-1, 1]."""
    with half_precision():
        return model.decode(latents).sample.float().clamp(-1, 1)


def psnr(drawn: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio of each picture in dB (values in [-1, 1])."""
    return -10 * torch.log10(((drawn - real) ** 2).mean(dim=(1, 2, 3)).clamp_min(1e-8) / 4)


def held_out_psnr(model: AutoencoderKL, count: int = 64) -> float:
    """Mean PSNR on held-out pictures."""
    real = Pictures("held_out").batch(range(count))
    return float(psnr(decode(model, encode(model, real)), real).mean())


def train(options: argparse.Namespace) -> None:
    """Train encoder and decoder on 64 px crops and, every fourth step, on whole pictures."""
    further = options.action == "further"
    name = "autoencoder-further" if further else "autoencoder"
    run = Run(name, options.minutes, options.decay, peer=options.peer or 0)
    frozen = work_folder() / "autoencoder" / "frozen"
    model = AutoencoderKL.from_pretrained(frozen) if further else build() if options.fresh else start()
    model.to(DEVICE)
    anchor = copy.deepcopy(model).eval().requires_grad_(False) if further else None
    average = Average(model, halflife=400)
    optimiser = Optimiser(model)
    run.keep(model=model, average=average.model, optimiser=optimiser)
    peer = Peer(run.folder, run.peer) if options.peer is not None else None
    generator = np.random.default_rng([run.step, run.peer])
    while run.going():
        if run.step % 1000 == 0 or run.parts == 0:
            pictures = Pictures("train")
        whole, small = run.step % 4 == 3, generator.random() < options.small
        real = pictures.batch(generator.integers(0, len(pictures), options.batch // 4 if whole else options.batch))
        real = real if whole else random_crops(real, SIZE // 2, generator)
        losses = joint_loss(model, real, options, small, anchor)
        optimiser.step(losses.pop("loss"), options.rate * run.factor(200))
        run.count(options.batch / 4, **{name: loss.item() for name, loss in losses.items()})
        average.update(model, run.step)
        if peer:
            peer.exchange(model, run.step)
        run.log(
            200,
            **({"psnr": round(held_out_psnr(average.model), 3)} if run.step % 1000 == 0 else {}),
        )
    if not run.peer:
        average.model.save_pretrained(run.folder / "trained")


@torch.no_grad()
def normalise(model: AutoencoderKL, pictures: Pictures, count: int = 2000) -> None:
    """Fold the latents' mean and scale per channel into the convolutions next to them.

    Afterwards latents have mean 0 and deviation 1 in each channel, so `scaling_factor` is 1.
    """
    chosen = np.random.default_rng(0).permutation(len(pictures))[:count]
    latents = torch.cat([encode(model, pictures.batch(chosen[i : i + 50])) for i in range(0, len(chosen), 50)])
    mean, scale = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    inward, outward = model.quant_conv, model.post_quant_conv
    inward.weight[:CHANNELS] /= scale[:, None, None, None]
    inward.bias[:CHANNELS] = (inward.bias[:CHANNELS] - mean) / scale
    inward.bias[CHANNELS:] -= 2 * scale.log()
    outward.bias += outward.weight[:, :, 0, 0] @ mean
    outward.weight *= scale[None, :, None, None]


def freeze(options: argparse.Namespace) -> None:
    """Write the normalised autoencoder, then the latents of all training pictures at one resolution.

    Where no autoencoder was trained here, it is the shipped one, which is normalised already.
    """
    folder = work_folder() / "autoencoder"
    if not (folder / "frozen").exists():
        trained = (folder / "trained").exists()
        model = AutoencoderKL.from_pretrained(folder / "trained" if trained else SHIPPED, dtype=torch.float32)
        if trained:
            normalise(model.to(DEVICE), Pictures("train"))
        model.save_pretrained(folder / "frozen")
    written = (folder / "frozen" / "config.json").stat().st_mtime
    model = AutoencoderKL.from_pretrained(folder / "frozen").eval().to(DEVICE, memory_format=torch.channels_last)
    shards = Pictures("train")
    shares = list(zip(picture_files("train"), shards.shards, strict=False))[options.share[0] :: options.share[1]]
    for file, shard in shares:
        target = latent_file(file, options.resolution)
        if target.exists() and target.stat().st_mtime >= written:
            continue
        pictures, latents = Shards([shard]), []
        for first in range(0, len(shard), AT_ONCE):
            batch = to_signed(pictures.stack(range(first, min(first + AT_ONCE, len(shard)))).to(DEVICE))
            batch = (batch if options.resolution == SIZE else halved(batch)).to(memory_format=torch.channels_last)
            latents.append(encode(model, batch).half().cpu())
        write_array(torch.cat(latents).numpy(), target)


def adopt(options: argparse.Namespace) -> None:
    """Put the autoencoder that went on in the place of the frozen one, and write the latents anew.

    A denoiser may train meanwhile: each file of latents is replaced as a whole, and new ones are near the old ones.
    Begun again after a kill, it writes those that are still older than the autoencoder.
    """
    frozen, later = work_folder() / "autoencoder" / "frozen", work_folder() / "autoencoder-further"
    if (later / "trained").exists():
        shutil.rmtree(frozen)
        (later / "trained").rename(frozen)
        (frozen / "config.json").touch()  # all latents there are are older
        for state in (*later.glob("*.pt"), *(work_folder() / "decoder").glob("*.pt")):
            state.unlink()  # the next sitting starts from what is frozen now
    freeze(options)


def decoder_batch(
    pictures: Pictures, latents: Shards, generator: np.random.Generator, batch: int, whole: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents and the pictures they stand for: whole, or crops of 8 x 8 cells."""
    chosen = np.sort(generator.integers(0, len(latents), batch // 4 if whole else batch))
    cells, real = latents.stack(chosen).to(DEVICE).float(), pictures.batch(chosen)
    if whole:
        return cells, real
    side = cells.shape[-1] // 2
    corners = generator.integers(0, side + 1, (len(chosen), 2))
    cells = torch.stack([c[:, y : y + side, x : x + side] for c, (y, x) in zip(cells, corners, strict=False)])
    side, corners = side * FACTOR, corners * FACTOR
    return cells, torch.stack([p[:, y : y + side, x : x + side] for p, (y, x) in zip(real, corners, strict=False)])


def train_decoder(options: argparse.Namespace) -> None:
    """Go on with the decoder, on the latents written by `freeze`."""
    run = Run("decoder", options.minutes, options.decay)
    model = AutoencoderKL.from_pretrained(work_folder() / "autoencoder" / "frozen").to(DEVICE)
    model.encoder.requires_grad_(False)
    model.quant_conv.requires_grad_(False)
    average = Average(model, halflife=1000)
    optimiser = Optimiser(model)
    run.keep(model=model, average=average.model, optimiser=optimiser)
    pictures, latents = Pictures("train"), read_latents("train", SIZE)
    generator = np.random.default_rng(run.step)
    while run.going():
        cells, real = decoder_batch(pictures, latents, generator, options.batch, whole=run.step % 2 == 1)
        with half_precision():
            drawn = model.decode(cells + options.noise * torch.randn_like(cells)).sample
        loss = picture_loss(drawn.float(), real)
        optimiser.step(loss, options.rate * run.factor(200))
        run.count(options.batch / 4, picture=loss.item())
        average.update(model, run.step)
        run.log(
            200,
            **({"psnr": round(held_out_psnr(average.model), 3)} if run.step % 1000 == 0 else {}),
        )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["train", "freeze", "further", "adopt", "decoder"])
    parser.add_argument("--minutes", type=float, default=240)
    parser.add_argument("--decay", type=float, default=0, help="minutes of falling rate at the end of this sitting")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--batch", type=int, default=8, help="64 px crops per step")
    parser.add_argument("--kl", type=float, default=5e-4)
    parser.add_argument("--small", type=float, default=0.2, help="share of steps that decode averaged latents")
    parser.add_argument("--anchor", type=float, default=0.3, help="weight of staying near the frozen latents")
    parser.add_argument("--resolution", type=int, choices=[64, SIZE], default=SIZE, help="of the latents to write")
    parser.add_argument(
        "--share",
        type=lambda t: tuple(map(int, t.split("/"))),
        default=(0, 1),
        help="0/2 and 1/2 freeze in two processes",
    )
    parser.add_argument("--noise", type=float, default=0.03, help="deviation of noise on the decoder's latents")
    parser.add_argument("--peer", type=int, help="0, 1 ...: one of several processes that share their weights")
    parser.add_argument("--fresh", action="store_true", help="do not start from the shipped weights")
    options = parser.parse_args()
    one_thread()
    actions = {"train": train, "further": train, "freeze": freeze, "adopt": adopt, "decoder": train_decoder}
    actions[options.action](options)


if __name__ == "__main__":
    main()
