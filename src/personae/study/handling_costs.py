"""What it costs to have a trained character at hand: loading it, and switching to it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from personae.core.devices import synchronize
from personae.generation.cast import Cast
from personae.models.family import Family

REPEATS = 3


@dataclass(frozen=True, slots=True)
class Handling:
    """Seconds to have a character ready.

    Attributes:
        load_seconds: from the file to attached to the loaded base.
        switch_seconds: from another character in memory to a base ready to draw with this one.
    """

    load_seconds: float
    switch_seconds: float

    def costs(self) -> dict[str, float]:
        """Return both by name."""
        return {"load_seconds": self.load_seconds, "switch_seconds": self.switch_seconds}


def handling_costs(
    path: Path, name: str, base: Family, *, now: Callable[[], float] = time.perf_counter
) -> tuple[Cast, Handling]:
    """Return the cast of one artifact, on no base, and what handling it costs.

    Medians of a few repeats on the clock `now`; nothing may be attached to the base.
    """
    loads, switches = [], []
    for _ in range(REPEATS):
        started = now()
        cast = Cast.load({name: path})
        with cast.on(base):
            synchronize(base.device)
            loads.append(now() - started)
    artifact = cast.members[name].artifact
    with cast.on(base):
        for _ in range(REPEATS):
            started = now()
            cast.add(name, artifact)
            for overlay in base.overlays.values():
                overlay.settle()
            synchronize(base.device)
            switches.append(now() - started)
    return Cast.load({name: path}), Handling(median(loads), median(switches))
