"""Pictures with their recipe: all it takes to draw the same bytes again, kept inside the PNG."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo
from pydantic import ValidationError

from personae.core.config import first_problem
from personae.core.files import replacing
from personae.errors import UsageError
from personae.generation.recipe import Recipe

CHUNK = "personae"
_LONGEST_REASON = 160


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawn image and its recipe."""

    image: Image.Image
    recipe: Recipe

    def save(self, path: str | Path) -> Path:
        """Write a PNG that holds the recipe, atomically, and return its path."""
        path = Path(path).with_suffix(".png")
        info = PngInfo()
        info.add_itxt(CHUNK, self.recipe.model_dump_json())
        with replacing(path) as temporary:
            self.image.save(temporary, format="PNG", pnginfo=info)
        return path

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Read a picture and its recipe back.

        Raises:
            UsageError: no such file, not a picture, or without a recipe of ours.
        """
        try:
            with Image.open(path) as image:
                image.load()
                text = image.info.get(CHUNK)
                loaded = image.convert("RGB")
        except FileNotFoundError:
            raise UsageError(f"{path}: no such file; check the path") from None
        except (UnidentifiedImageError, OSError) as error:
            raise UsageError(f"{path}: is not a readable picture ({error})") from None
        if text is None:
            raise UsageError(
                f"{path}: holds no recipe; only PNGs drawn by personae and not re-saved have one"
            )
        return cls(loaded, parse_recipe(text, path))


def parse_recipe(text: str, path: str | Path) -> Recipe:
    """Return the recipe that a picture holds as text.

    Raises:
        UsageError: it is damaged; the message says where, and never repeats the text.
    """
    try:
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError("it is no table of values")
        return Recipe.model_validate(values)
    except ValidationError as error:
        reason = first_problem(Recipe, error)
    except (ValueError, RecursionError) as error:
        reason = str(error) or type(error).__name__
    reason = reason if len(reason) <= _LONGEST_REASON else reason[:_LONGEST_REASON] + "..."
    raise UsageError(f"{path}: its recipe is damaged ({' '.join(reason.split())}); draw another")
