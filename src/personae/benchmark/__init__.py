"""How fast and how lean: one measurement a process, ours and a plain diffusers loop by turns.

`bench` makes the measurements of a `Plan`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from personae.core.doors import door

if TYPE_CHECKING:
    from personae.benchmark.bench import bench
    from personae.benchmark.jobs import Plan

__all__ = [
    "Plan",
    "bench",
]

__getattr__, __dir__ = door(
    __name__,
    {
        "Plan": "jobs",
        "bench": "bench",
    },
)
