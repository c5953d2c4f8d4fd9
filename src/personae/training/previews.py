"""Previews: what a run draws of itself, in the size it trains at and in no more memory than that.

Where networks are put aside, pictures are drawn one by one and decoded in tiles of half their side;
what guidance doubles goes through the denoiser row by row where training's batch is one row.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from personae.artifacts.artifact import Artifact
from personae.generation.cast import Cast, Member
from personae.generation.generate import draw
from personae.generation.picture import Picture
from personae.generation.sampler import Shot
from personae.generation.settings import Sampling
from personae.models.family import Family
from personae.training.events import Preview
from personae.training.run_folder import RunFolder
from personae.training.settings import RunConfig, Schedule
from personae.training.trainer import Workbench

STEPS = 15
TOGETHER = 4


def sampling(config: RunConfig, schedule: Schedule, base: Family, steps: int = STEPS) -> Sampling:
    """Return how previews of a run are drawn."""
    side = schedule.resolution or base.resolution
    lean = {}
    if config.unload:
        tile = math.ceil(side / 2 / base.size_step) * base.size_step
        # Shapes that training has met need no further kernels.
        lean = {"tile": tile, "rows_at_once": 1 if schedule.most_rows == 1 else None}
    return Sampling(steps=steps, width=side, height=side, **lean)


def together(config: RunConfig) -> int:
    """Return how many previews are drawn in one batch."""
    return 1 if config.unload else TOGETHER


def draw_previews(bench: Workbench, cast: Cast, steps: int = STEPS) -> list[Picture]:
    """Return a picture of each preview prompt."""
    config = bench.config
    shots = [Shot(prompt, config.seed) for prompt in config.preview_prompts]
    how = sampling(config, bench.schedule, bench.base, steps)
    return draw(bench.base, shots, how, cast, batch_size=together(config))


def preview(
    bench: Workbench, artifact: Artifact, folder: RunFolder, step: int
) -> Iterator[Preview]:
    """Draw the preview prompts with what is in memory, which `artifact` describes."""
    for technique in bench.techniques:
        technique.eval()
    cast = Cast({"character": Member(artifact, techniques=bench.techniques)})
    yield from saved(draw_previews(bench, cast), folder, step)
    for technique in bench.techniques:
        technique.train()


def saved(pictures: list[Picture], folder: RunFolder, step: int) -> Iterator[Preview]:
    """Save the previews of `step`."""
    for number, picture in enumerate(pictures):
        yield Preview(step, picture.save(preview_file(folder.path, step, number)))


def preview_file(folder: Path, step: int, number: int) -> Path:
    """Return where preview `number` of `step` goes."""
    return folder / "previews" / f"step-{step:06d}-{number}.png"
