"""What it costs to have a trained character at hand: loading it, and switching to it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from personae.artifact import Artifact
from personae.cast import Cast
from personae.devices import synchronize
from personae.families.base import Family
from personae.generation import Shot, draw
from personae.pictures import Sampling

REPEATS = 3


@dataclass(frozen=True, slots=True)
class Handling:
    """Seconds to have a character ready.

    Attributes:
        load_seconds: from the file to attached to the loaded base.
        switch_seconds: from another character in memory to the first step drawn with this one,
            less what a step takes anyway.
    """

    load_seconds: float
    switch_seconds: float

    def costs(self) -> dict[str, float]:
        """Return both by name."""
        return {"load_seconds": self.load_seconds, "switch_seconds": self.switch_seconds}


def handling_costs(path: Path, name: str, base: Family) -> tuple[Cast, Handling]:
    """Return the cast of one artifact, on no base, and what handling it costs.

    Medians of a few repeats; nothing may be attached to the base.
    """
    loads, switches = [], []
    for _ in range(REPEATS):
        started = time.perf_counter()
        cast = Cast.load({name: path})
        with cast.on(base):
            synchronize(base.device)
            loads.append(time.perf_counter() - started)
    artifact = cast.members[name].artifact
    with cast.on(base):
        _one_step(base, name, cast)
        for _ in range(REPEATS):
            switches.append(_switch(base, name, artifact, cast) - _one_step(base, name, cast))
    return Cast.load({name: path}), Handling(median(loads), max(0.0, median(switches)))


def _switch(base: Family, name: str, artifact: Artifact, cast: Cast) -> float:
    started = time.perf_counter()
    cast.add(name, artifact)
    return time.perf_counter() - started + _one_step(base, name, cast)


@torch.no_grad()
def _one_step(base: Family, name: str, cast: Cast) -> float:
    started = time.perf_counter()
    draw(base, [Shot(f"{{{name}}}")], Sampling(steps=1, guidance_scale=1), cast)
    synchronize(base.device)
    return time.perf_counter() - started
