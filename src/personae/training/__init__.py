"""From a character to an artifact: one loop, its data, loss, optimisers and memory.

`train` runs it by a `RunConfig` and yields `events`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from personae.core.doors import door

if TYPE_CHECKING:
    from personae.training import events
    from personae.training.run_folder import RunFolder
    from personae.training.schedule import Schedule
    from personae.training.settings import RunConfig
    from personae.training.train import train

__all__ = [
    "RunConfig",
    "RunFolder",
    "Schedule",
    "events",
    "train",
]

__getattr__, __dir__ = door(
    __name__,
    {
        "RunConfig": "settings",
        "RunFolder": "run_folder",
        "Schedule": "schedule",
        "events": "",
        "train": "train",
    },
)
