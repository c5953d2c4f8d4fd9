"""What every dataset layout gives: references with captions, and what was odd about them.

A layout recognises a folder or a file and reads it; each is a module of `datasets/`, found by the
registry. Pictures are listed here, not decoded.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, overload

from personae.characters.character_toml import FILE_NAME
from personae.characters.folder_index import FolderIndex, folded, list_folder
from personae.characters.reference import Reference
from personae.characters.sidecars import CaptionRule, find_mask, pictures_in
from personae.characters.unused import Unused
from personae.core.registry import PlugIn
from personae.errors import CharacterError

Role = Literal["references", "held_out", "prior"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FoundPictures:
    """What a layout found.

    Attributes:
        references: pictures to learn from.
        held_out: pictures that the layout itself sets apart for validation.
        prior: pictures of the class, for regularisation.
        name: name of the character if the layout carries one.
        class_noun: what the character is, if the layout says so.
        phrase: how the captions of this set name the character.
        notes: lines on things a person should know, each with its file.
        problems: lines on pictures or captions that cannot be used, each with its file.
        unused: files that are left out for a reason only the layout knows; what else is left
            is found by `personae.characters.census`.
    """

    references: tuple[Reference, ...] = ()
    held_out: tuple[Reference, ...] = ()
    prior: tuple[Reference, ...] = ()
    name: str | None = None
    class_noun: str | None = None
    phrase: str | None = None
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    unused: tuple[Unused, ...] = ()


@dataclass(frozen=True, slots=True)
class FolderRule:
    """How to read one folder of pictures.

    Attributes:
        captions: where the captions are.
        role: what the pictures are for.
        repeats: how often one pass shows each picture.
        loss_weight: factor on the loss of each picture.
        masks: folder of masks; None looks beside the pictures.
        masks_inverted: black marks the character in those masks.
        recursive: pictures of subfolders belong to it too.
        skipped: names of subfolders that do not, in lower case.
    """

    captions: CaptionRule = field(default_factory=CaptionRule)
    role: Role = "references"
    repeats: int = 1
    loss_weight: float = 1.0
    masks: Path | None = None
    masks_inverted: bool = False
    recursive: bool = False
    skipped: frozenset[str] = frozenset()


class DatasetLayout(PlugIn, ABC):
    """A way to lay out a training set.

    Attributes:
        name: the module's name.
        title: what it looks like, in a few words, for people.
        fallback: True for the one layout that any folder of pictures satisfies.
    """

    package: ClassVar[str] = "personae.characters.datasets"
    group: ClassVar[str] = "personae.datasets"
    name: ClassVar[str]
    title: ClassVar[str]
    fallback: ClassVar[bool] = False

    @abstractmethod
    def matches(self, path: Path) -> bool:
        """Say whether `path`, an existing folder or file, is laid out this way."""

    @abstractmethod
    def read(self, path: Path) -> FoundPictures:
        """Return what lies at `path`.

        Raises:
            CharacterError: the layout itself is broken; trouble with single pictures and
                captions is collected in `FoundPictures.problems` instead.
        """


def read_folder(folder: Path, rule: FolderRule) -> FoundPictures:
    """Return the pictures of one folder with their captions and masks.

    Raises:
        CharacterError: the folder cannot be read, or holds no picture.
    """
    index = FolderIndex()
    pictures = [
        path
        for path in pictures_in(folder, recursive=rule.recursive)
        if not (rule.masks and rule.masks != folder and path.is_relative_to(rule.masks))
        and not any(folded(part) in rule.skipped for part in path.relative_to(folder).parts[:-1])
    ]
    if not pictures:
        raise CharacterError(
            f"{folder}: holds no pictures; put 5 to 20 PNG, JPEG or WebP files there"
        )
    if rule.masks is not None:
        list_folder(rule.masks)
    found, problems = [], []
    for picture in pictures:
        try:
            file = rule.captions.find(picture, index)
            reference = Reference(
                path=picture,
                caption=rule.captions.read(file),
                repeats=rule.repeats,
                mask=find_mask(picture, index, folder=rule.masks),
                loss_weight=rule.loss_weight,
                mask_inverted=rule.masks_inverted,
                caption_file=file,
            )
        except CharacterError as error:
            problems.append(str(error))
        else:
            found.append(reference)
    return replace(in_role(rule.role, tuple(found)), problems=tuple(problems))


def in_role(role: Role, references: tuple[Reference, ...]) -> FoundPictures:
    """Return a reading with nothing but pictures, all for `role`."""
    match role:
        case "references":
            return FoundPictures(references=references)
        case "held_out":
            return FoundPictures(held_out=references)
        case "prior":
            return FoundPictures(prior=references)


def merge(
    readings: Iterable[FoundPictures],
    *,
    name: str | None = None,
    class_noun: str | None = None,
    phrase: str | None = None,
) -> FoundPictures:
    """Return several readings as one, with the name, class noun and phrase of the whole."""
    parts = list(readings)
    joined: dict[str, Any] = {
        key: tuple(item for part in parts for item in getattr(part, key))
        for key in ("references", "held_out", "prior", "notes", "problems", "unused")
    }
    return FoundPictures(name=name, class_noun=class_noun, phrase=phrase, **joined)


def entry_file(
    path: Path, suffixes: tuple[str, ...], belongs: Callable[[Path], bool]
) -> Path | None:
    """Return the configuration file of a layout: `path` itself, or the one in that folder.

    Args:
        path: a folder or a file.
        suffixes: file endings in which the layout writes its configuration.
        belongs: says whether a file with such an ending is one; raises if it cannot be parsed.

    Raises:
        CharacterError: the folder holds several, or one that cannot be parsed.
    """
    candidates = list_folder(path) if path.is_dir() else [path]
    found = [
        file
        for file in candidates
        if file.suffix.lower() in suffixes
        and file.is_file()
        and folded(file.name) != FILE_NAME
        and belongs(file)
    ]
    if len(found) > 1:
        raise CharacterError(
            f"{path}: holds {found[0].name} and {found[1].name}; name the file you mean"
        )
    return found[0] if found else None


def the_entry_file(path: Path, suffixes: tuple[str, ...], belongs: Callable[[Path], bool]) -> Path:
    """Return `entry_file`, where a layout has matched already.

    Raises:
        CharacterError: as `entry_file` does, or there is none.
    """
    file = entry_file(path, suffixes, belongs)
    if file is None:
        raise CharacterError(
            f"{path}: holds no {' or '.join(suffixes)} file of a dataset; name the file you mean"
        )
    return file


def resolve(location: str, beside: Path) -> Path:
    """Return the path that a configuration file names.

    Relative paths are taken from the file's own folder and, where nothing is there, from the
    working directory, which is what the trainers themselves do. Backslashes separate folders
    where no file has them in its name.
    """
    path = Path(location).expanduser()
    near = beside.parent / path
    if "\\" in location and not (near.exists() or path.exists()):
        return resolve(location.replace("\\", "/"), beside)
    return path if path.is_absolute() or (path.exists() and not near.exists()) else near


@overload
def take(table: dict[str, Any], key: str, kind: type[T], default: None, where: str) -> T | None: ...


@overload
def take(table: dict[str, Any], key: str, kind: type[T], default: T, where: str) -> T: ...


def take(table: dict[str, Any], key: str, kind: type[T], default: T | None, where: str) -> T | None:
    """Return `table[key]` if it is of the expected kind, `default` if it is absent or null.

    Args:
        table: settings read from a file.
        key: the setting.
        kind: type of its value.
        default: what stands for an absent setting; may be None.
        where: the file, for the error.

    Raises:
        CharacterError: a value of another kind; whole numbers pass as fractions.
    """
    value = table.get(key)
    if value is None:
        return default
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise CharacterError(f"{where}: '{key}' is {value!r}; expected {kind.__name__}")
    return value


def at_least_one(repeats: int, where: str) -> int:
    """Return `repeats` if it is 1 or more.

    Raises:
        CharacterError: it is smaller.
    """
    if repeats < 1:
        raise CharacterError(f"{where}: repeats is {repeats}; it must be 1 or more")
    return repeats


def above_zero(weight: float, key: str, where: str) -> float:
    """Return a loss weight if it is a number above 0.

    Raises:
        CharacterError: it is not; a weight below 0 would teach away from the pictures.
    """
    if not 0 < weight < math.inf:
        raise CharacterError(
            f"{where}: '{key}' is {weight:g}; it must be above 0; leave out what is not learnt"
        )
    return weight
