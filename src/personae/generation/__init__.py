"""From a cast and prompts to pictures, and the recipes inside them.

`draw` gives pictures, `generate` progress too, `redraw` a picture again from its recipe.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from personae.core.doors import door

if TYPE_CHECKING:
    from personae.generation.cast import Cast
    from personae.generation.generate import draw, generate
    from personae.generation.picture import Picture
    from personae.generation.picture_metadata import read_settings, save_picture
    from personae.generation.recipe import Recipe
    from personae.generation.redraw import redraw
    from personae.generation.sampler import Shot
    from personae.generation.settings import Sampling

__all__ = [
    "Cast",
    "Picture",
    "Recipe",
    "Sampling",
    "Shot",
    "draw",
    "generate",
    "read_settings",
    "redraw",
    "save_picture",
]

__getattr__, __dir__ = door(
    __name__,
    {
        "Cast": "cast",
        "Picture": "picture",
        "Recipe": "recipe",
        "Sampling": "settings",
        "Shot": "sampler",
        "draw": "generate",
        "generate": "generate",
        "read_settings": "picture_metadata",
        "redraw": "redraw",
        "save_picture": "picture_metadata",
    },
)
