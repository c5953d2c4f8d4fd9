"""A character: the pictures a person brought, their captions, and how prompts call it.

`Character.open` reads any layout that `personae.characters.datasets` knows. It decodes every
picture once to refuse early, and keeps none of them in memory. It knows nothing about models.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from personae.characters import captions, character_toml
from personae.characters.census import take_census
from personae.characters.character_toml import CharacterFile, as_name
from personae.characters.dataset import DatasetLayout, FoundPictures
from personae.characters.duplicates import difference_hash
from personae.characters.held_out import Candidate, choose, digest
from personae.characters.reference import Reference
from personae.core import units
from personae.core.registry import discover, nearest
from personae.errors import CharacterError, UsageError

logger = logging.getLogger(__name__)

UNKNOWN_CLASS: Final = "character"
"""Class noun of a character whose kind nobody stated; it reads well in every phrase."""


@dataclass(frozen=True, slots=True)
class Character:
    """Pictures of one character, split into those to learn from and those never shown.

    Attributes:
        folder: where the pictures, or the file that lists them, lie.
        name: one word; prompts call the character `{name}`.
        class_noun: what it is ("girl"); `UNKNOWN_CLASS` where nobody said.
        phrase: how the captions of the set name it, if not by its name.
        asymmetric: left and right differ, so pictures must not be flipped.
        licence: terms under which the pictures may be used.
        references: the training pictures, at least one.
        held_out: pictures never trained on; likeness is measured against them.
        prior: pictures of the class for regularisation, if the layout carries some.
    """

    folder: Path
    name: str
    class_noun: str
    phrase: str | None
    asymmetric: bool
    licence: str | None
    references: tuple[Reference, ...]
    held_out: tuple[Reference, ...]
    prior: tuple[Reference, ...]

    @classmethod
    def open(cls, folder: str | Path, *, hold_out: float | None = None) -> Self:
        """Read a folder of pictures, or a file that lists them.

        Args:
            folder: a folder in any layout of `personae.characters.datasets`, or a kohya TOML,
                ai-toolkit YAML, OneTrainer JSON, metadata JSONL or CSV file.
            hold_out: share of the pictures to set apart, in [0, 0.5]; 0 trains on all. None takes
                what `character.toml` or the layout says, else a fifth from 5 pictures on.

        Raises:
            CharacterError: no pictures, or pictures, captions or masks that cannot be used; all
                of them are named.
            UsageError: `hold_out` is out of range.
        """
        if hold_out is not None and not 0 <= hold_out <= 0.5:
            raise UsageError(f"hold_out is {hold_out}; it must be in [0, 0.5]")
        path = Path(folder).expanduser()
        home, reading, stated = read_set(path)
        references, held_out = _split(reading, stated, hold_out)
        _tell(path, reading)
        class_noun = stated.class_noun or reading.class_noun
        if class_noun is None:
            _tell_unknown_class(home)
        return cls(
            folder=home,
            name=name_of(home, reading, stated),
            class_noun=class_noun or UNKNOWN_CLASS,
            phrase=stated.phrase or reading.phrase,
            asymmetric=stated.asymmetric,
            licence=stated.licence,
            references=references,
            held_out=held_out,
            prior=reading.prior,
        )

    @property
    def fingerprint(self) -> str:
        """Return a sha256 that changes if and only if what is trained on changes.

        It covers the bytes of pictures and masks, captions, repeats and weights, in any order and
        under any file names; held-out pictures are not part of it.
        """
        roles = (("reference", self.references), ("prior", self.prior))
        entries = sorted(
            json.dumps(
                [
                    role,
                    digest(reference.path),
                    reference.caption,
                    reference.repeats,
                    None if reference.mask is None else digest(reference.mask),
                    reference.loss_weight,
                    *(["mask inverted"] if reference.mask_inverted else []),
                ]
            )
            for role, references in roles
            for reference in references
        )
        return hashlib.sha256("\n".join(entries).encode()).hexdigest()

    def caption(self, reference: Reference, phrase: str) -> str:
        """Return the caption of `reference` in which the character is called `phrase`.

        The name, the phrase of this set and the placeholders of `captions.PLACEHOLDERS` are
        replaced; a caption that does not mention the character gets the phrase in front, and a
        picture without caption reads "a picture of <phrase>".
        """
        return captions.rename(reference.caption, self._mention, phrase)

    def captions(self, phrase: str) -> tuple[str, ...]:
        """Return `caption` of each of `references`, in their order."""
        named = self._mention
        return tuple(captions.rename(r.caption, named, phrase) for r in self.references)

    @property
    def _mention(self) -> re.Pattern[str]:
        return captions.mention(self.name, self.class_noun, self.phrase)


def read_set(path: Path) -> tuple[Path, FoundPictures, CharacterFile]:
    """Return the folder of what lies at `path`, what a layout found, and what is stated beside it.

    Raises:
        CharacterError: nothing is there, its layout is broken, or `character.toml` is.
    """
    reading = read_dataset(path)
    home = path if path.is_dir() else path.parent
    return home, reading, CharacterFile.beside(home)


def name_of(home: Path, reading: FoundPictures, stated: CharacterFile) -> str:
    """Return what prompts call a character: as its file says, else its layout, else its folder."""
    return stated.name or as_name(reading.name or home.resolve().name)


def _tell_unknown_class(home: Path) -> None:
    logger.warning(
        '%s: does not say what the character is; "%s" is used. Write class_noun = "girl" '
        "(or whatever it is) into %s",
        home,
        UNKNOWN_CLASS,
        character_toml.FILE_NAME,
    )


def read_dataset(path: Path) -> FoundPictures:
    """Return what lies at `path`, read by the one layout that recognises it.

    Raises:
        CharacterError: nothing is there, no layout or several recognise it, or the layout
            is broken.
    """
    try:
        if not path.exists():
            raise CharacterError(f"{path}: does not exist; check the path")
        return _read(path)
    except PermissionError as error:  # a folder that may be listed and not entered, for one
        raise CharacterError(
            f"{error.filename or path}: may not be read; change the permissions of it and of the "
            "folder it is in (chmod u+rX)"
        ) from None


def _tell(path: Path, reading: FoundPictures) -> None:
    """Log what is odd about a set, and warn of pictures and captions that are left out."""
    if reading.notes:
        logger.info("%s", "\n".join(reading.notes))
    census = take_census(path, reading)
    left = [
        units.count(tally.found - tally.used, noun)
        for noun, tally in census.tallies.items()
        if tally.found > tally.used
    ]
    if left:
        logger.warning(
            "%s: left out are %s; `personae check` says which and why", path, ", ".join(left)
        )


def _read(path: Path) -> FoundPictures:
    layouts = [kind() for kind in discover(DatasetLayout).values()]
    matching = [one for one in layouts if not one.fallback and one.matches(path)]
    if len(matching) > 1:
        titles = " and ".join(one.title for one in matching)
        raise CharacterError(f"{path}: could be {titles}; name the file, or move one away")
    matching = matching or [one for one in layouts if one.fallback and one.matches(path)]
    if not matching:
        titles = "; ".join(one.title for one in layouts)
        raise CharacterError(f"{path}: is in no known layout, or damaged; known are: {titles}")
    reading = matching[0].read(path)
    if not (reading.references or reading.problems):
        raise CharacterError(f"{path}: has no pictures to learn from, only for other uses")
    return reading


def _split(
    reading: FoundPictures, stated: CharacterFile, hold_out: float | None
) -> tuple[tuple[Reference, ...], tuple[Reference, ...]]:
    """Return the pictures to train on and those held out, after decoding all of them."""
    candidates = _decoded(reading)
    if hold_out is None and stated.held_out is not None:
        chosen = _named(stated.held_out, [candidate.path for candidate in candidates])
    elif hold_out is None and reading.held_out:
        chosen = frozenset(reference.path for reference in reading.held_out)
    else:
        chosen = choose(candidates, hold_out)
    everything = reading.references + reading.held_out
    training = tuple(r for r in everything if r.path not in chosen)
    if not training:
        raise CharacterError(f"all {len(everything)} pictures are held out; none is left to learn")
    return training, tuple(r for r in everything if r.path in chosen)


def _decoded(reading: FoundPictures) -> list[Candidate]:
    """Return the distinct pictures with their hashes; refuse if any cannot be used."""
    problems = list(reading.problems)
    hashes: dict[Path, int] = {}
    for reference in reading.references + reading.held_out + reading.prior:
        try:
            image = reference.image()
            if reference.mask is not None:
                reference.mask_image()
        except CharacterError as error:
            problems.append(str(error))
        else:
            hashes[reference.path] = difference_hash(image)
    if problems:
        count = f"{len(problems)} files cannot be used: " if len(problems) > 1 else ""
        raise CharacterError(count + " | ".join(dict.fromkeys(problems)))
    prior = {reference.path for reference in reading.prior}
    return [Candidate(path, value) for path, value in hashes.items() if path not in prior]


def _named(names: Iterable[str], paths: list[Path]) -> frozenset[Path]:
    by_name = {path.name: path for path in paths}
    for name in names:
        if name not in by_name:
            raise CharacterError(
                f"{character_toml.FILE_NAME}: held_out names '{name}', which is no picture of "
                f"this set.{nearest(name, by_name)}"
            )
    return frozenset(by_name[name] for name in names)
