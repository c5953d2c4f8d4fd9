"""The report of `personae check`: what to mend in a folder of pictures before training on it.

Every finding says what is wrong, with the value found, and what to do. Nothing is changed, and
no model is needed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

from personae.characters import held_out
from personae.characters.captions import mention
from personae.characters.census import Census, take_census
from personae.characters.character import UNKNOWN_CLASS, name_of, read_set
from personae.characters.character_toml import FILE_NAME, CharacterFile
from personae.characters.checks import captions
from personae.characters.checks.captions import Tokenizer
from personae.characters.checks.finding import Finding, Level, by_level
from personae.characters.checks.pictures import (
    Measured,
    PictureRow,
    background_groups,
    measure,
    of_picture,
    of_set,
)
from personae.characters.dataset import FoundPictures
from personae.characters.reference import Reference
from personae.characters.sidecars import CAPTION_SUFFIXES
from personae.core.units import count
from personae.errors import CharacterError

MANY_REPEATS: Final = 200
"""More repeats than trainers of characters advise (5 to 40, at most 100 for single pictures)."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """The report on a training set.

    Attributes:
        path: what was inspected.
        name: how prompts call the character.
        class_noun: what it is, or None where nobody said.
        findings: errors first, then warnings, then notes.
        pictures: one row per readable training or held-out picture.
        backgrounds: groups of like backgrounds as (colour, pictures), the largest first.
        held_out: number of pictures that will be held out.
        prior: number of class pictures.
        census: files found and used, by kind.
        repeats: {how often one pass shows a picture: number of pictures}.
    """

    path: Path
    name: str
    class_noun: str | None
    findings: tuple[Finding, ...]
    pictures: tuple[PictureRow, ...]
    backgrounds: tuple[tuple[str, int], ...]
    held_out: int
    prior: int
    census: Census
    repeats: dict[int, int]

    def count(self, level: Level) -> int:
        """Return the number of findings of a level."""
        return sum(finding.level == level for finding in self.findings)

    @property
    def is_ready(self) -> bool:
        """Say whether it can be trained on: no finding is an error."""
        return self.count("error") == 0

    @property
    def mask_share(self) -> float | None:
        """Return the part of the picture that masks mark on average; None without masks."""
        shares = [row.mask_share for row in self.pictures if row.mask_share is not None]
        return sum(shares) / len(shares) if shares else None

    @property
    def framings(self) -> dict[str, int]:
        """Return how many pictures are close, medium, far or unclear."""
        return dict(Counter(row.framing for row in self.pictures))


def inspect_folder(
    folder: str | Path,
    *,
    tokenizer: Tokenizer | None = None,
    flip: bool = False,
    resolution: int = 128,
) -> Inspection:
    """Return what is good and bad about a training set.

    Args:
        folder: whatever `Character.open` reads.
        tokenizer: text -> ids of the base's text encoder, start and end marks included; None
            estimates lengths.
        flip: pictures will be mirrored at random.
        resolution: shorter side, in pixels, at which will be trained.

    Raises:
        CharacterError: nothing is there to inspect, its layout is broken, or `character.toml` is.
    """
    path = Path(folder).expanduser()
    home, reading, stated = read_set(path)
    name = name_of(home, reading, stated)
    class_noun = stated.class_noun or reading.class_noun
    subject = _subject(name, class_noun, stated.phrase or reading.phrase)
    references = reading.references + reading.held_out
    measured, unreadable = _measure(references, subject, tokenizer, resolution)
    census = take_census(path, reading)
    findings = chain(
        unreadable,
        _of_layout(reading, census, home),
        _of_repeats(references),
        _of_pictures(measured, home, resolution),
        captions.of_captions(references, subject, home, tokenizer),
        _of_character(class_noun, home, mirrored=flip and stated.asymmetric),
    )
    return Inspection(
        path=path,
        name=name,
        class_noun=class_noun,
        findings=by_level(findings),
        pictures=tuple(one.row for one in measured),
        backgrounds=tuple(background_groups(measured)),
        held_out=_held_out(measured, reading, stated),
        prior=len(reading.prior),
        census=census,
        repeats=dict(sorted(Counter(reference.repeats for reference in references).items())),
    )


def _subject(name: str, class_noun: str | None, phrase: str | None) -> captions.Subject:
    """Return whom the captions are about."""
    named = mention(name, class_noun, phrase)
    return captions.Subject(named, f"{name} {class_noun or UNKNOWN_CLASS}", class_noun)


def _measure(
    references: tuple[Reference, ...],
    subject: captions.Subject,
    tokenizer: Tokenizer | None,
    resolution: int,
) -> tuple[list[Measured], list[Finding]]:
    """Return the measures of the readable pictures, and a finding on each of the others."""
    measured, findings = [], []
    for reference in {reference.path: reference for reference in references}.values():
        tokens = None
        if reference.caption is not None:
            tokens = captions.count_tokens(subject.named_in(reference.caption), tokenizer)
        try:
            measured.append(measure(reference, resolution, tokens))
        except CharacterError as error:
            findings.append(_unusable(str(error), reference.path))
    return measured, findings


def _unusable(message: str, fallback: Path) -> Finding:
    """Return the finding on a file that cannot be used; messages begin with its name."""
    file, separator, rest = message.partition(": ")
    if not separator:
        return Finding("error", "unusable", fallback, message)
    return Finding("error", "unusable", Path(file), rest)


def _of_pictures(measured: list[Measured], home: Path, resolution: int) -> Iterator[Finding]:
    yield from of_set(measured, home)
    for one in measured:
        yield from of_picture(one, resolution)


def _of_layout(reading: FoundPictures, census: Census, home: Path) -> Iterator[Finding]:
    """Yield what the layout tells, and the files it does not read."""
    for problem in reading.problems:
        yield _unusable(problem, home)
    for note in reading.notes:
        file, _, message = note.partition(": ")
        yield Finding("note", "layout", Path(file), message)
    for reference in reading.prior:
        try:
            reference.image()
        except CharacterError as error:
            yield _unusable(str(error), reference.path)
    if reading.prior:
        yield Finding(
            "note",
            "class-pictures",
            home,
            f"brings {count(len(reading.prior), 'class picture')}; training learns from them only "
            "with --prior images",
        )
    for one in census.unused:
        level: Level = "note" if one.path.suffix.lower() in CAPTION_SUFFIXES else "warning"
        yield Finding(level, "layout", one.path, one.reason)


def _of_repeats(references: tuple[Reference, ...]) -> Iterator[Finding]:
    """Yield a warning for each folder whose pictures are shown more often than anyone means."""
    folders = {r.path.parent: r.repeats for r in references if r.repeats > MANY_REPEATS}
    for folder, repeats in folders.items():
        yield Finding(
            "warning",
            "repeats",
            folder,
            f"each of its pictures is shown {repeats:,} times in a pass; if the number in the "
            "name is no count (a year, a date), rename the folder",
        )


def _of_character(class_noun: str | None, home: Path, *, mirrored: bool) -> Iterator[Finding]:
    if class_noun is None:
        yield Finding(
            "warning",
            "class-noun",
            home,
            f'does not say what the character is; write class_noun = "girl" (or what it is) into '
            f"{FILE_NAME}",
        )
    if mirrored:
        yield Finding(
            "error",
            "flip",
            home,
            "left and right of the character differ (asymmetric = true), and flip is on; turn "
            "flip off",
        )


def _held_out(measured: list[Measured], reading: FoundPictures, stated: CharacterFile) -> int:
    """Return how many pictures `Character.open` will hold out."""
    if stated.held_out is not None:
        return len(stated.held_out)
    candidates = [held_out.Candidate(one.row.file, one.difference_hash) for one in measured]
    return len(reading.held_out or held_out.choose(candidates, None))
