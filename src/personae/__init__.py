"""Teach a diffusion model one character and keep it the same everywhere.

The public names load on first use, so that `import personae` takes no time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from personae.core.doors import door

if TYPE_CHECKING:
    from personae.artifacts.artifact import Artifact
    from personae.characters.character import Character
    from personae.generation.cast import Cast
    from personae.generation.generate import draw, generate
    from personae.generation.picture import Picture
    from personae.generation.sampler import Shot
    from personae.generation.settings import Sampling
    from personae.models.load import load_base
    from personae.training.settings import RunConfig
    from personae.training.train import train

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

__getattr__, __dir__ = door(
    __name__,
    {
        "Artifact": "artifacts.artifact",
        "Cast": "generation.cast",
        "Character": "characters.character",
        "Picture": "generation.picture",
        "RunConfig": "training.settings",
        "Sampling": "generation.settings",
        "Shot": "generation.sampler",
        "draw": "generation.generate",
        "generate": "generation.generate",
        "load_base": "models.load",
        "train": "training.train",
    },
)
