"""What was learnt, in one file with its card, and algebra on it.

`Artifact.load` reads one; `merge`, `resize` and `extract` make new ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from personae.core.doors import door

if TYPE_CHECKING:
    from personae.artifacts.artifact import Artifact
    from personae.artifacts.card import Card, read_card
    from personae.artifacts.extract import extract
    from personae.artifacts.merge import merge, resize
    from personae.artifacts.strength import Strength

__all__ = [
    "Artifact",
    "Card",
    "Strength",
    "extract",
    "merge",
    "read_card",
    "resize",
]

__getattr__, __dir__ = door(
    __name__,
    {
        "Artifact": "artifact",
        "Card": "card",
        "Strength": "strength",
        "extract": "extract",
        "merge": "merge",
        "read_card": "card",
        "resize": "merge",
    },
)
