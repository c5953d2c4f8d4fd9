"""A world small enough for tests: tiny bases of the real classes, a painted character, short runs.

Everything here is made by the library's own code; nothing is imitated.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image, ImageDraw

from personae.artifacts.artifact import Artifact
from personae.artifacts.card import CharacterRecord
from personae.characters.character import Character
from personae.core.devices import HOST
from personae.core.event import Event
from personae.core.registry import discover, lookup
from personae.core.seeds import generator_for
from personae.generation.cast import Cast
from personae.generation.sampler import Shot, sample
from personae.generation.settings import Sampling
from personae.models.families.stable_diffusion import StableDiffusion
from personae.models.family import Family
from personae.models.toys import tiny_stable_diffusion
from personae.techniques.technique import Technique
from personae.training.settings import RunConfig
from personae.training.setup import set_up
from personae.training.train import train
from personae.training.trainer import Trainer

PROMPTS = ("a cat and the can", "the man")
Result = TypeVar("Result")
NAME, CLASS_NOUN = "mira", "cat"


@cache
def bases() -> dict[str, Family]:
    """Return {source: base} of every tiny variant of every family, built once."""
    families = discover(Family).values()
    return {base.source: base for family in families for base in family.tiny()}


def shallow_pipeline() -> StableDiffusionPipeline:
    """Return the tiny SD 1.x pipeline with two levels of its U-Net in the place of four.

    A pass has fewer than half of the operations, for tests that are not about the blocks of Stable
    Diffusion: each operation on tensors without values costs a third of a millisecond. The
    autoencoder is half as wide, so that a step still takes more memory than a preview.
    """
    pipe = tiny_stable_diffusion(1)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(16, 32),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=24,
            attention_head_dim=2,
            norm_num_groups=8,
        )
        vae = AutoencoderKL(
            block_out_channels=(4, 4, 8, 8),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=4,
            norm_num_groups=4,
            sample_size=64,
        )
    pipe.register_modules(unet=unet, vae=vae)
    return pipe


@cache
def shallow_base() -> Family:
    """Return the base of `shallow_pipeline`, built once."""
    return StableDiffusion.from_pipeline(shallow_pipeline(), "shallow", HOST, torch.float32)


def techniques() -> list[str]:
    """Return the names of all techniques."""
    return list(discover(Technique))


def make(name: str, base: Family, seed: int = 0, **settings: Any) -> Technique:
    """Return technique `name` for the painted character, not attached, in evaluation mode."""
    kind = lookup(Technique, name)
    config = kind.settings_for(kind.Config.parse(settings), NAME, CLASS_NOUN)
    return kind(config, base, generator_for(seed, "start", name)).eval()


@torch.no_grad()
def stir(technique: Technique, size: float = 0.05, seed: int = 7) -> Technique:
    """Move every parameter a little, as training would, so that the technique has an effect."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in technique.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator) * size)
    return technique


def phrase(technique: Technique) -> str:
    """Return how a prompt names the painted character."""
    return technique.phrase(NAME, CLASS_NOUN)


def noisy(base: Family, rows: int = 2, seed: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Return fixed latents (rows, c, h, w) and times (rows,) of `base`."""
    shape = base.latent_shape(base.resolution, base.resolution)
    latents = torch.randn(rows, *shape, generator=torch.Generator().manual_seed(seed))
    return latents, base.path.spread(rows, shape)


@torch.no_grad()
def prediction(base: Family, prompts: Sequence[str] = PROMPTS) -> torch.Tensor:
    """Return what `base` predicts now for fixed latents and times, (len(prompts), c, h, w)."""
    latents, times = noisy(base, len(prompts))
    return base.denoise(latents, times, base.encode_text(prompts)).clone()


def drawn(base: Family, shots: Sequence[Shot], how: Sampling) -> torch.Tensor:
    """Return the latents that a drawing of the bare base ends with, (shots, c, h, w)."""
    steps = sample(base, shots, how, Cast())
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value


def weights(base: Family) -> dict[str, torch.Tensor]:
    """Return a copy of every tensor of the base's networks by its full name."""
    return {
        f"{network}.{name}": value.detach().clone()
        for network, module in base.networks.items()
        for name, value in module.state_dict().items()
    }


def bare(base: Family) -> bool:
    """Say whether no network of `base` carries a hook and every weight is a parameter."""
    modules = [module for network in base.networks.values() for module in network.modules()]
    return not any(
        module._forward_hooks or module._forward_pre_hooks for module in modules
    ) and all(
        isinstance(weight, torch.nn.Parameter)
        for module in modules
        for weight in module._parameters.values()
        if weight is not None
    )


def artifact_of(made: Sequence[Technique] | Technique, base: Family) -> Artifact:
    """Return what techniques of the painted character hold now, with a card."""
    made = [made] if isinstance(made, Technique) else list(made)
    record = CharacterRecord(name=NAME, class_noun=CLASS_NOUN, phrase=phrase(made[0]))
    return Artifact.of(made, base, character=record)


def paint(folder: Path, count: int = 6, *, masks: bool = False, size: int = 64) -> Path:
    """Paint `count` captioned pictures of a round creature and return their folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "character.toml").write_text(
        f'name = "{NAME}"\nclass_noun = "{CLASS_NOUN}"\n', encoding="utf-8"
    )
    for number in range(count):
        colours = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        picture = Image.fromarray(colours).resize((size, size), Image.Resampling.NEAREST)
        place = 8 + 4 * (number % 6)
        circle = (place, place, place + size // 2, place + size // 2)
        ImageDraw.Draw(picture).ellipse(circle, fill=(230, 60, 40))
        if masks:
            mask = Image.new("L", (size, size), 0)
            ImageDraw.Draw(mask).ellipse(circle, fill=255)
            picture.putalpha(mask)
        picture.save(folder / f"{number:02}.png")
        (folder / f"{number:02}.txt").write_text(f"{{name}} on the can {number}", encoding="utf-8")
    return folder


def run_config(character: Path, **values: Any) -> RunConfig:
    """Return the settings of a run of a few steps."""
    schedule = {"steps": 4, "batch_size": 2, "learning_rate": 1e-3} | values.pop("schedule", {})
    defaults = {
        "character": character,
        "device": "cpu",
        "precision": "fp32",
        "preview_prompts": [],
        "preview_every": 1000,
    }
    return RunConfig.read({**defaults, "schedule": schedule, **values})


def trainer_of(config: RunConfig, base: Family) -> Trainer:
    """Return the trainer of a run, its techniques attached to `base`; `eject` detaches them."""
    character = Character.open(config.character)
    config = config.resolved(len(character.references), base)
    trainer = returned(set_up(config, character, base))
    trainer.attach()
    return trainer


def returned(events: Generator[Event, None, Result]) -> Result:
    """Let a generator of events come to its end and return its value."""
    while True:
        try:
            next(events)
        except StopIteration as end:
            return end.value


def run(config: RunConfig, out: Path, base: Family, **options: Any) -> list[Event]:
    """Train to the end and return all events."""
    return list(train(config, out, base=base, **options))


def only(events: Sequence[Event], kind: type[Event]) -> list[Any]:
    """Return the events of one kind."""
    return [event for event in events if isinstance(event, kind)]
