"""Networks that look at pictures, and do not know why: they turn pictures and texts into vectors.

A plug-in author needs `Encoder` from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from personae.core.doors import door

if TYPE_CHECKING:
    from personae.vision.encoder import Encoder
    from personae.vision.load import load_encoder

__all__ = [
    "Encoder",
    "load_encoder",
]

__getattr__, __dir__ = door(
    __name__,
    {
        "Encoder": "encoder",
        "load_encoder": "load",
    },
)
