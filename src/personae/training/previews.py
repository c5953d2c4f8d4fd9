"""Previews: what a run draws of itself while it learns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from personae.artifacts.artifact import Artifact
from personae.generation.cast import Cast, Member
from personae.generation.generate import draw
from personae.generation.picture import Picture
from personae.generation.sampler import Shot
from personae.training.events import Preview
from personae.training.preview_settings import STEPS, sampling, together
from personae.training.run_folder import RunFolder
from personae.training.trainer import Trainer


def draw_previews(trainer: Trainer, cast: Cast, steps: int = STEPS) -> list[Picture]:
    """Return a picture of each preview prompt."""
    config = trainer.config
    shots = [Shot(prompt, config.seed) for prompt in config.preview_prompts]
    how = sampling(config, trainer.schedule, trainer.base, steps)
    return draw(trainer.base, shots, how, cast, batch_size=together(config))


def preview(
    trainer: Trainer, artifact: Artifact, folder: RunFolder, step: int
) -> Iterator[Preview]:
    """Draw the preview prompts with what is in memory, which `artifact` describes."""
    for technique in trainer.techniques:
        technique.eval()
    cast = Cast({"character": Member(artifact, techniques=trainer.techniques)})
    yield from saved(draw_previews(trainer, cast), folder, step)
    for technique in trainer.techniques:
        technique.train()


def saved(pictures: list[Picture], folder: RunFolder, step: int) -> Iterator[Preview]:
    """Save the previews of `step`."""
    for number, picture in enumerate(pictures):
        yield Preview(step, picture.save(preview_file(folder.path, step, number)))


def preview_file(folder: Path, step: int, number: int) -> Path:
    """Return where preview `number` of `step` goes."""
    return folder / "previews" / f"step-{step:06d}-{number}.png"
