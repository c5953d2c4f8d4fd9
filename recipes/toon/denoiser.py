"""The denoiser (diffusers `UNet2DConditionModel`) and the text encoder, trained together on latents.

    python denoiser.py --resolution 64      most of the training: 8 x 8 latents, 64 px pictures
    python denoiser.py --resolution 128     the rest: 16 x 16 latents

The net predicts v (arXiv 2202.00512) on Stable Diffusion's own noise schedule.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from autoencoder import CHANNELS
from data import DEVICE, half_precision, work_folder
from feed import Feed
from loop import Average, Peer, Run, one_thread
from muon import Optimiser
from winograd import use_winograd

WIDTHS = (96, 160, 256, 288)
TEXT_WIDTH = 192
"""Differs from all widths of the net: A1111's hypernetworks are told apart by width."""
SHIPPED = Path(__file__).parents[2] / "src" / "personae" / "embedded" / "bases" / "toon"
AT_ONCE = 64
"""Pictures that go through the net together on a processor; larger batches take memory and no less time."""


def scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule, predicting v; sampling starts at the noisiest step."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
        timestep_spacing="trailing",
    )


def build_unet() -> UNet2DConditionModel:
    """Four levels as in Stable Diffusion 1.x. Attention at the two middle ones: at the top it costs a third."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        down_block_types=(
            "DownBlock2D",
            "CrossAttnDownBlock2D",
            "CrossAttnDownBlock2D",
            "DownBlock2D",
        ),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=WIDTHS,
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
    )


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A small CLIP text encoder."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            num_hidden_layers=4,
            num_attention_heads=6,
            max_position_embeddings=tokenizer.model_max_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            hidden_act="quick_gelu",
        )
    )


class Denoiser(nn.Module):
    """The net and the text encoder as one module, so that they are averaged and saved as one."""

    def __init__(self, unet: UNet2DConditionModel, text_encoder: CLIPTextModel) -> None:
        super().__init__()
        self.unet, self.text_encoder = unet, text_encoder
        if DEVICE.type == "cpu":
            # the fused attention's backward is slow there: a step of 64 pictures takes 3.9 s with it, 3.1 s without
            unet.set_attn_processor(AttnProcessor())
            text_encoder.set_attn_implementation("eager")

    def read(self, tokens: torch.Tensor) -> torch.Tensor:
        """What captions (B x 77 tokens) say to the net; each is read once: a tenth of them are empty."""
        if DEVICE.type != "cpu":
            return self.text_encoder(tokens).last_hidden_state
        tokens, places = torch.unique(tokens, dim=0, return_inverse=True)
        return self.text_encoder(tokens).last_hidden_state[places]

    def forward(
        self, noisy: torch.Tensor, times: torch.Tensor, tokens: torch.Tensor, text_learns: bool = True
    ) -> torch.Tensor:
        """Predict v for noisy latents (B x C x H x W) at times (B) under captions (B x 77 tokens)."""
        with half_precision():
            with torch.set_grad_enabled(text_learns and torch.is_grad_enabled()):
                text = self.read(tokens)
            return self.unet(noisy, times, text).sample.float()


def start(tokenizer: CLIPTokenizer, fresh: bool) -> Denoiser:
    """The shipped weights where there are some, else new ones."""
    if fresh or not (SHIPPED / "unet").exists():
        return Denoiser(build_unet(), build_text_encoder(tokenizer))
    unet = UNet2DConditionModel.from_pretrained(SHIPPED / "unet", dtype=torch.float32)
    text = CLIPTextModel.from_pretrained(SHIPPED / "text_encoder", dtype=torch.float32)
    return Denoiser(unet, text)


class Times:
    """Draws training times: the logarithm of the signal-to-noise ratio is normal around 0, a few are uniform.

    Stable Diffusion's schedule was made for 64 x 64 latents; on small ones half of its times are almost pure noise.
    """

    def __init__(self, spread: float = 2.2, uniform: float = 0.15) -> None:
        self.signal = scheduler().alphas_cumprod.double()
        ratio = torch.log(self.signal / (1 - self.signal))
        density = torch.exp(-((ratio / spread) ** 2) / 2) * torch.gradient(-ratio)[0]
        self.weights = density / density.sum() * (1 - uniform) + uniform / len(ratio)

    def draw(self, count: int) -> torch.Tensor:
        """`count` times."""
        return torch.multinomial(self.weights, count, replacement=True)

    def noised(self, clean: torch.Tensor, times: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Noisy latents and the v to predict."""
        alpha = self.signal[times].sqrt().float()[:, None, None, None].to(clean.device)
        sigma = (1 - self.signal[times]).sqrt().float()[:, None, None, None].to(clean.device)
        noise = torch.randn_like(clean)
        return alpha * clean + sigma * noise, alpha * noise - sigma * clean


def gradients(model: Denoiser, feed: Feed, times: Times, generator: np.random.Generator, batch: int) -> float:
    """Add up the gradients of a batch, on a processor in parts; returns the loss.

    The text encoder learns from the first part only: its way back takes 0.9 s of the 6 s of a part.
    """
    total, most = 0.0, AT_ONCE if DEVICE.type == "cpu" else batch
    for first in range(0, batch, most):
        count = min(most, batch - first)
        latents, tokens = feed.batch(count, generator)
        moments = times.draw(count)
        noisy, target = times.noised(latents, moments)
        drawn = model(noisy, moments.to(DEVICE), tokens, text_learns=first == 0)
        loss = (drawn - target).square().mean() * (count / batch)
        loss.backward()
        total += loss.item()
    return total


def train(options: argparse.Namespace) -> None:
    """The training loop."""
    tokenizer = CLIPTokenizer.from_pretrained(work_folder() / "tokenizer")
    run = Run("denoiser", options.minutes, options.decay, peer=options.peer or 0)
    torch.manual_seed(run.peer)
    model = start(tokenizer, options.fresh).to(DEVICE)
    use_winograd(model.unet)
    average = Average(model, halflife=options.halflife)
    optimiser = Optimiser(model)
    run.keep(model=model, average=average.model, optimiser=optimiser)
    peer = Peer(run.folder, run.peer, max(1, 3200 // options.batch)) if options.peer is not None else None
    feed, times = Feed(tokenizer, "train", options.resolution), Times()
    generator = np.random.default_rng([run.step, run.peer])
    if options.compile:
        model.unet.compile()
    while run.going():
        loss = gradients(model, feed, times, generator, options.batch)
        norm = optimiser.update(options.rate * run.factor(100))
        run.count(options.batch, loss=loss, norm=norm)
        average.update(model, run.step)
        if peer:
            peer.exchange(model, run.step)
        run.log(max(1, 1600 // options.batch), resolution=options.resolution, data=len(feed))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--resolution",
        type=int,
        choices=[64, 128],
        default=128,
        help="side of the pictures in pixels",
    )
    parser.add_argument("--minutes", type=float, default=600)
    parser.add_argument("--decay", type=float, default=0, help="minutes of falling rate at the end of this sitting")
    parser.add_argument("--rate", type=float, default=8e-4)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--halflife", type=float, default=300, help="of the average, in steps")
    parser.add_argument("--compile", action="store_true", help="by torch.compile; pays on a GPU")
    parser.add_argument("--peer", type=int, help="0, 1 ...: one of several processes that share their weights")
    parser.add_argument("--fresh", action="store_true", help="do not start from the shipped weights")
    options = parser.parse_args()
    one_thread()
    train(options)


if __name__ == "__main__":
    main()
