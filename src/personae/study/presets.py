"""Ready-made settings: a fair comparison of techniques, and brief trainings for a first look."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from personae.core.config import Config

if TYPE_CHECKING:  # a command draws its options from here, and torch takes seconds to import
    from personae.study.study import Study
    from personae.training.settings import RunConfig

BRIEF_BATCH_SIZE = 8
"""Pictures in a step of a brief training."""


class FairComparison(Config):
    """What may be chosen of a fair comparison.

    All techniques get the same pictures, captions, caches and noise, the same number of
    presentations, and are judged by the same prompts and seeds; none is stopped early.
    """

    base: str = "toon"
    """Base model."""
    techniques: list[str] = []
    """Separated by commas; join with + to train together. Default: all."""
    seeds: int = Field(default=1, ge=1, le=10_000)
    """Trainings of each technique."""
    budget: str = "steps"
    """Equal for all: steps (as many presentations as the longest recommendation), steps=N,
    presentations=N or seconds=N; or own, as each recommends."""
    keep: Literal["best", "most_flexible", "last"] = "best"
    """Checkpoint that becomes the artifact."""
    pictures: int = Field(default=2, ge=1, le=10_000)
    """Pictures drawn of each prompt."""
    suite: str | None = None
    """Prompts: toon, general, or a TOML file of your own."""
    identity: str | None = None
    """Encoder that tells characters apart, such as dinov2."""
    image_text: str | None = None
    """Encoder that reads pictures and texts, such as clip."""
    device: str = "auto"
    """auto, cuda, mps or cpu."""
    precision: str = "auto"
    """Format of the base's weights: auto, bf16, fp16 or fp32; int8 or nf4 for its linear layers
    alone (needs torchao)."""

    @field_validator("techniques", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        """Take "lora,dreambooth" for two, in a list too."""
        given = [value] if isinstance(value, str) else value
        if not isinstance(given, list | tuple):
            return value
        return [name.strip() for text in given for name in str(text).split(",")]

    def study(self, characters: list[Path], folder: Path | None = None) -> Study:
        """Plan the comparison of techniques on characters; nothing is run or written.

        Args:
            characters: folders of pictures.
            folder: of the study; by default `studies/` and the names of the characters.

        Raises:
            UsageError: a technique is unknown or a value is wrong.
            StudyError: no character can be opened, or two have the same name.
        """
        from personae.study.study import Study

        chosen = {"suite": self.suite, "identity": self.identity, "image_text": self.image_text}
        values = {
            "character": [str(each) for each in characters],
            "base": self.base,
            "technique": self.techniques or every_technique(),
            "seed": list(range(self.seeds)),
            "device": self.device,
            "precision": self.precision,
            "keep": self.keep,
            "stop_early": False,  # all get the same number of presentations
            "budget": self.budget,
            "judging": {"seeds": self.pictures}
            | {name: value for name, value in chosen.items() if value is not None},
        }
        place = folder or Path("studies") / "-".join(path.resolve().name for path in characters)
        return Study.plan(values, place, where="compare")


def every_technique() -> list[str]:
    """Return the names of all techniques."""
    from personae.core.registry import discover
    from personae.techniques.technique import Technique

    return list(discover(Technique))


def brief_training(character: Path, *, steps: int, base: str | None = None) -> RunConfig:
    """Return the settings of a training for a first look.

    Args:
        character: folder of pictures.
        steps: optimiser steps.
        base: by default the embedded one.

    Raises:
        UsageError: a value is wrong.
    """
    from personae.training.settings import RunConfig

    schedule = {"steps": steps, "batch_size": BRIEF_BATCH_SIZE}
    values: dict[str, Any] = {"character": character, "schedule": schedule}
    return RunConfig.read(values | ({"base": base} if base else {}))


def brief_comparison(
    character: Path,
    folder: Path,
    *,
    steps: int,
    base: str | None = None,
    suite: str | None = None,
) -> Study:
    """Plan a comparison for a first look: one short training of each technique, a picture a shot.

    Args:
        character: folder of pictures.
        folder: of the study.
        steps: of a technique that takes one pass of the network a step; the others present as
            many pictures.
        base: by default the embedded one.
        suite: by default the one that fits the base.

    Raises:
        UsageError: a value is wrong.
        StudyError: the character cannot be opened.
    """
    from personae.study.study import Study

    values: dict[str, Any] = {
        "character": [str(character)],
        "technique": every_technique(),
        "schedule": {"batch_size": BRIEF_BATCH_SIZE},
        "keep": "last",
        "budget": f"presentations={steps * BRIEF_BATCH_SIZE}",
        "judging": {"seeds": 1} | ({"suite": suite} if suite else {}),
    }
    return Study.plan(values | ({"base": base} if base else {}), folder, where="demo")
