"""Teach a diffusion model one character and keep it the same everywhere.

The public names load on first use, so that `import personae` takes no time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from personae.artifact import Artifact
    from personae.bases import load_base
    from personae.cast import Cast
    from personae.character import Character
    from personae.generation import Shot, draw, generate
    from personae.pictures import Picture, Sampling
    from personae.settings import RunConfig
    from personae.training import train

__all__ = [
    "Artifact",
    "Cast",
    "Character",
    "Picture",
    "RunConfig",
    "Sampling",
    "Shot",
    "draw",
    "generate",
    "load_base",
    "train",
]

_HOMES = {
    "Artifact": "artifact",
    "Cast": "cast",
    "Character": "character",
    "Picture": "pictures",
    "RunConfig": "settings",
    "Sampling": "pictures",
    "Shot": "generation",
    "draw": "generation",
    "generate": "generation",
    "load_base": "bases",
    "train": "training",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'personae' has no attribute '{name}'")
    return getattr(importlib.import_module(f"personae.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
