"""Prompt suites: the fixed shots every technique is measured on, as TOML files.

A suite asks for a character in scenes, with expressions and in media, and for members of its class
without the character. Whoever draws fills in how prompts call the character; what the text metric
reads has the class noun in its place. `toon` and `general` are shipped; a file of your own in
the same form can be given by its path.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self

from PIL import Image
from pydantic import Field, model_validator

from personae.core.config import Config, read_toml
from personae.core.registry import nearest
from personae.errors import UsageError
from personae.evaluation.metric import Sample

CHARACTER: Final = "{character}"
CLASS: Final = "{class}"
FIRST_SEED: Final = 1001
"""Seeds count from here, away from the 0, 1, 2 that people draw previews with."""
SEEDS_APART: Final = 1000
"""Between the seeds of one shot and the next. Shots that share their noise are good or bad
together: on `toon` one checkpoint drew with likenesses from 0.29 to 0.88 on seven shared seeds."""


ShotKind = Literal["scene", "expression", "medium"]


class SuiteShot(Config):
    """One prompt about the character."""

    id: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    """Short name, unique in the suite: letters, digits and underscores."""
    prompt: str
    """What to draw, with {character} where the character is named."""
    kind: ShotKind
    """What the shot varies."""
    medium: str | None = None
    """Medium asked for; given if and only if the kind is medium."""

    @model_validator(mode="after")
    def _says_what_it_varies(self) -> Self:
        if (self.kind == "medium") != (self.medium is not None):
            raise ValueError(f"shot '{self.id}' needs 'medium' exactly where its kind is medium")
        if CHARACTER not in self.prompt:
            raise ValueError(f"prompt of '{self.id}' does not hold {CHARACTER}")
        return self


class ClassShot(Config):
    """One prompt about others of the character's class."""

    id: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    """Short name, unique in the suite."""
    prompt: str
    """What to draw, with {class} for the class noun and without the character."""

    @model_validator(mode="after")
    def _leaves_the_character_out(self) -> Self:
        if CHARACTER in self.prompt or CLASS not in self.prompt:
            raise ValueError(f"prompt of '{self.id}' must hold {CLASS} and not {CHARACTER}")
        return self


@dataclass(frozen=True, slots=True)
class Request:
    """One picture to draw.

    Attributes:
        prompt: what the base is asked for.
        text: what the picture should show, as the text metric reads it.
        shot: id of the shot.
        seed: seed to draw with.
        medium: medium asked for, or None.
    """

    prompt: str
    text: str
    shot: str
    seed: int
    medium: str | None = None

    def answered(self, image: Image.Image) -> Sample:
        """Return the picture drawn for this request, ready to be measured."""
        return Sample(image, self.text, self.shot, self.seed, self.medium)


class Suite(Config):
    """A fixed set of shots."""

    name: str
    """Name of the suite."""
    about: str = ""
    """What it is for."""
    shots: tuple[SuiteShot, ...] = Field(min_length=2)
    """Shots of the character; consistency needs at least two."""
    class_shots: tuple[ClassShot, ...] = ()
    """Shots of the class, for drift and prior collapse."""
    references: Path | None = None
    """Folder beside the suite's file with real pictures of its shots: for each character in them a
    folder that is called what the character is, and in it a picture for each shot, called like it
    (`woman/beach.webp`). They are what agreement with prompts is measured against."""

    @model_validator(mode="after")
    def _names_each_shot_once(self) -> Self:
        ids = [shot.id for shot in self.shots] + [shot.id for shot in self.class_shots]
        twice = next((name for name in ids if ids.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two shots are called '{twice}'")
        return self

    def of_kind(self, kind: ShotKind) -> list[SuiteShot]:
        """Return the shots that vary one thing."""
        return [shot for shot in self.shots if shot.kind == kind]

    def prompts(self, who: str, kind: ShotKind | None = None) -> list[str]:
        """Return the prompts of all shots, or of one kind, with `who` for the character."""
        shots = self.shots if kind is None else self.of_kind(kind)
        return [spelled(shot.prompt, who) for shot in shots]

    def requests(self, character: str, class_noun: str, seeds: Sequence[int]) -> list[Request]:
        """Return every shot with its own seeds, shot by shot; no two shots share their noise.

        Args:
            character: what the prompts call the character: `{mira}` for a cast, a technique's
                phrase, or the class noun for the untouched base.
            class_noun: what the character is ("girl"); the text metric reads it instead.
            seeds: of the first shot, one picture each; the next has each `SEEDS_APART` higher.
        """
        return [
            Request(
                spelled(shot.prompt, character),
                spelled(shot.prompt, class_noun),
                shot.id,
                seed + SEEDS_APART * place,
                shot.medium,
            )
            for place, shot in enumerate(self.shots)
            for seed in seeds
        ]

    def class_requests(self, class_noun: str, seeds: Sequence[int]) -> list[Request]:
        """Return every class shot with its own seeds, as `requests` does."""
        return [
            Request(text, text, shot.id, seed + SEEDS_APART * place)
            for place, shot in enumerate(self.class_shots)
            for text in [spelled(shot.prompt, class_noun)]
            for seed in seeds
        ]

    def pictures(self) -> list[list[Sample]]:
        """Return the real pictures of the shots, a list for each character; [] if there are none.

        Raises:
            UsageError: a picture is missing or cannot be read.
        """
        if self.references is None:
            return []
        folders = sorted(path for path in self.references.iterdir() if path.is_dir())
        return [[_reference(folder, shot) for shot in self.shots] for folder in folders]

    def part(self, scenes: int, expressions: int = 0, media: int = 0) -> Self:
        """Return a small suite of the first so many shots of each kind, for scoring checkpoints."""
        kept = [
            *self.of_kind("scene")[:scenes],
            *self.of_kind("expression")[:expressions],
            *self.of_kind("medium")[:media],
        ]
        return self.model_copy(update={"shots": tuple(kept)})


def _reference(folder: Path, shot: SuiteShot) -> Sample:
    """Return the real picture of a shot in the folder of one character."""
    path = next(iter(sorted(folder.glob(f"{shot.id}.*"))), folder / f"{shot.id}.png")
    try:
        with Image.open(path) as image:
            prompt = spelled(shot.prompt, folder.name.replace("_", " "))
            return Sample(image.convert("RGB"), prompt, shot.id, 0, shot.medium)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UsageError(
            f"{path}: no picture of shot '{shot.id}' can be read ({type(error).__name__}); the "
            "suite's references need one of every shot for each character"
        ) from None


def spelled(prompt: str, who: str) -> str:
    """Return the prompt with `who` for {character} or {class}, and its article made to fit."""
    article = "an" if who[:1].lower() in "aeiou" else "a"
    filled = re.sub(r"\ban?(?= \{(?:character|class)\})", article, prompt)
    return filled.replace(CHARACTER, who).replace(CLASS, who)


def load_suite(name_or_path: str | Path = "toon") -> Suite:
    """Load a shipped suite by name, or a TOML file.

    Raises:
        UsageError: no such suite or file, or a wrong key or value in it.
    """
    shipped = {path.stem: path for path in sorted(Path(__file__).parent.glob("suites/*.toml"))}
    path = shipped.get(str(name_or_path), Path(name_or_path))
    if path.suffix != ".toml":
        raise UsageError(
            f"suite is '{name_or_path}'; it must be one of {', '.join(shipped)}, or a .toml file."
            f"{nearest(str(name_or_path), shipped)}"
        )
    suite = Suite.parse(read_toml(path), where=str(path))
    if suite.references is None:
        return suite
    folder = path.parent / suite.references
    if not folder.is_dir():
        raise UsageError(f"{path}: references is '{suite.references}', but {folder} is no folder")
    return suite.model_copy(update={"references": folder})
