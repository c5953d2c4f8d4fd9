"""How previews of a run are sampled: in its own size, and in no more memory than a step takes.

Where networks are unloaded, pictures are drawn one by one and decoded in tiles of half their side;
what guidance doubles goes through the denoiser row by row where training's batch is one row.
"""

from __future__ import annotations

import math
from typing import Any

from personae.generation.settings import Sampling
from personae.models.family import Family
from personae.training.schedule import Schedule
from personae.training.settings import RunConfig

STEPS = 15
TOGETHER = 4


def sampling(config: RunConfig, schedule: Schedule, base: Family, steps: int = STEPS) -> Sampling:
    """Return how previews of a run are drawn."""
    side = schedule.resolution or base.resolution
    lean: dict[str, Any] = {}
    if config.unload:
        tile = math.ceil(side / 2 / base.size_step) * base.size_step
        # Shapes that training has met need no further kernels.
        lean = {"tile": tile, "rows_at_once": 1 if schedule.most_rows == 1 else None}
    return Sampling(steps=steps, width=side, height=side, **lean)


def together(config: RunConfig) -> int:
    """Return how many previews are drawn in one batch."""
    return 1 if config.unload else TOGETHER
