"""What draws a picture again: its recipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from personae.artifacts.card import Card
from personae.core.config import Config
from personae.generation.cast import Cast
from personae.generation.sampler import Shot
from personae.generation.settings import MOST_ROWS, Sampling
from personae.models.family import Family
from personae.version import __version__


class RecipeRow(Config):
    """One picture of a batch: what was asked, as written, and its seed."""

    prompt: str
    seed: int = Field(ge=-(2**63), lt=2**64)


class MemberRecord(Config):
    """One member of the cast a picture was drawn with."""

    file: str
    content_hash: str
    """Of the tensors of its artifact."""
    drawing_hash: str = ""
    """Of tensors, settings and phrase; older recipes have none."""
    strength: str = "1"

    def is_of(self, card: Card) -> bool:
        """Say whether the artifact of `card` is the one the picture was drawn with."""
        if self.drawing_hash:
            return card.drawing_hash == self.drawing_hash
        return card.content_hash == self.content_hash


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
    batch: list[RecipeRow] = Field(min_length=1, max_length=MOST_ROWS)
    row: int = Field(default=0, ge=0)
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


def recipe(
    base: Family,
    batch: Sequence[Shot],
    place: int,
    sampling: Sampling,
    cast: Cast,
    *,
    ways: Sequence[str] = (),
) -> Recipe:
    """Return the recipe of row `place` of a batch that was drawn with accelerations `ways`."""
    return Recipe(
        version=__version__,
        base=base.source,
        fingerprint=base.fingerprint,
        precision=base.precision,
        cast={
            name: MemberRecord(
                file=Path(member.path).name if member.path else name,
                content_hash=member.artifact.card.content_hash,
                drawing_hash=member.artifact.card.drawing_hash,
                strength=str(member.strength),
            )
            for name, member in cast.members.items()
        },
        sampling=sampling,
        batch=[RecipeRow(prompt=shot.prompt, seed=shot.seed) for shot in batch],
        row=place,
        acceleration=list(ways),
    )
