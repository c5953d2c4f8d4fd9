"""Pictures with their recipe: all it takes to draw the same bytes again, kept inside the PNG."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo
from pydantic import Field, ValidationError, model_validator

from personae.core.config import Config
from personae.core.files import replacing
from personae.errors import UsageError

CHUNK = "personae"


class Sampling(Config):
    """How pictures are drawn."""

    sampler: str = "dpm++2m"
    """Sampler: ddim, euler, dpm++2m or unipc."""
    steps: int = Field(25, ge=1, le=1000)
    """Steps from noise to picture."""
    guidance_scale: float = Field(5.0, ge=1)
    """Classifier-free guidance (arXiv:2207.12598); 1 = off. Typical: 3 to 8."""
    width: int | None = Field(None, gt=0)
    """Width in pixels; default: the base's own."""
    height: int | None = Field(None, gt=0)
    """Height in pixels; default: the base's own."""
    negative_prompt: str = ""
    """What to keep out of the pictures."""
    tile: int | None = Field(None, gt=0)
    """Decode larger pictures in overlapping tiles of this many pixels a side, for little memory;
    such a picture differs a little. Default: whole. Typical: 512."""
    rows_at_once: int | None = Field(None, ge=1)
    """Most rows in a call of the denoiser, for little memory; guidance makes two of a picture, and
    the last bits of a picture depend on it. Default: all of a batch."""


class Row(Config):
    """One picture of a batch: what was asked, as written, and its seed."""

    prompt: str
    seed: int


class MemberRecord(Config):
    """One member of the cast a picture was drawn with."""

    file: str
    content_hash: str
    strength: str = "1"


class Recipe(Config):
    """All that decides a picture's bytes.

    The rows of the whole batch are kept, since the last bits of a batched product depend on them.
    """

    version: str
    base: str
    fingerprint: str
    precision: str
    cast: dict[str, MemberRecord] = {}
    sampling: Sampling = Sampling()
    batch: list[Row] = Field(min_length=1)
    row: int = Field(0, ge=0)
    acceleration: list[str] = []
    """The quicker ways of computing that were used; their last bits are their own."""

    @model_validator(mode="after")
    def _row_is_in_the_batch(self) -> Self:
        if self.row >= len(self.batch):
            raise ValueError(f"row is {self.row}, but the batch has {len(self.batch)}")
        return self

    @property
    def prompt(self) -> str:
        """Return this picture's prompt as it was written."""
        return self.batch[self.row].prompt

    @property
    def seed(self) -> int:
        """Return this picture's seed."""
        return self.batch[self.row].seed


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
        try:
            return cls(loaded, Recipe.model_validate(json.loads(text)))
        except (json.JSONDecodeError, ValidationError) as error:
            raise UsageError(
                f"{path}: its recipe is damaged ({str(error).splitlines()[0]})"
            ) from None
