"""What every dataset convention gives: references with captions, and what was odd about them.

A convention recognises a folder or a file and reads it; one module of this folder per convention,
found by the registry. Pictures are listed here, not decoded.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from personae.characters.reference import Reference
from personae.characters.sidecars import CaptionRule, find_mask, list_folder, notes_on, pictures_in
from personae.core.registry import PlugIn
from personae.errors import CharacterError

Role = Literal["references", "held_out", "prior"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FoundPictures:
    """What a convention found.

    Attributes:
        references: pictures to learn from.
        held_out: pictures that the convention itself sets apart for validation.
        prior: pictures of the class, for regularisation.
        name: name of the character if the convention carries one.
        class_noun: what the character is, if the convention says so.
        phrase: how the captions of this set name the character.
        notes: lines on things a person should know, each with its file.
        problems: lines on pictures or captions that cannot be used, each with its file.
    """

    references: tuple[Reference, ...] = ()
    held_out: tuple[Reference, ...] = ()
    prior: tuple[Reference, ...] = ()
    name: str | None = None
    class_noun: str | None = None
    phrase: str | None = None
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FolderRule:
    """How to read one folder of pictures.

    Attributes:
        captions: where the captions are.
        role: what the pictures are for.
        repeats: how often one pass shows each picture.
        loss_weight: factor on the loss of each picture.
        masks: folder of masks; None looks beside the pictures.
        recursive: pictures of subfolders belong to it too.
    """

    captions: CaptionRule = field(default_factory=CaptionRule)
    role: Role = "references"
    repeats: int = 1
    loss_weight: float = 1.0
    masks: Path | None = None
    recursive: bool = False


class Convention(PlugIn, ABC):
    """A way to lay out a training set.

    Attributes:
        name: the module's name.
        layout: what it looks like, in a few words, for people.
        fallback: True for the one convention that any folder of pictures satisfies.
    """

    package: ClassVar[str] = "personae.characters.datasets"
    group: ClassVar[str] = "personae.datasets"
    name: ClassVar[str]
    layout: ClassVar[str]
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
    pictures = pictures_in(folder, recursive=rule.recursive)
    if not pictures:
        raise CharacterError(
            f"{folder}: holds no pictures; put 5 to 20 PNG, JPEG or WebP files there"
        )
    found, problems = [], []
    for picture in pictures:
        try:
            caption = rule.captions.caption(picture)
            mask = find_mask(picture, folder=rule.masks)
        except CharacterError as error:
            problems.append(str(error))
        else:
            found.append(Reference(picture, caption, rule.repeats, mask, rule.loss_weight))
    notes = notes_on(folder, pictures, rule.captions)
    return FoundPictures(**{rule.role: tuple(found)}, notes=tuple(notes), problems=tuple(problems))


def merge(readings: Iterable[FoundPictures], **facts: str | None) -> FoundPictures:
    """Return several readings as one; `facts` are the name, class noun and phrase of the whole."""
    parts = list(readings)
    joined: dict[str, Any] = {
        key: tuple(item for part in parts for item in getattr(part, key))
        for key in ("references", "held_out", "prior", "notes", "problems")
    }
    return FoundPictures(**joined, **facts)


def entry_file(
    path: Path, suffixes: tuple[str, ...], belongs: Callable[[Path], bool]
) -> Path | None:
    """Return the configuration file of a convention: `path` itself, or the one in that folder.

    Args:
        path: a folder or a file.
        suffixes: file endings in which the convention writes its configuration.
        belongs: says whether a file with such an ending is one.

    Raises:
        CharacterError: the folder holds several.
    """
    candidates = list_folder(path) if path.is_dir() else [path]
    found = [file for file in candidates if file.suffix in suffixes and belongs(file)]
    if len(found) > 1:
        raise CharacterError(
            f"{path}: holds {found[0].name} and {found[1].name}; name the file you mean"
        )
    return found[0] if found else None


def resolve(location: str, beside: Path) -> Path:
    """Return the path that a configuration file names.

    Relative paths are taken from the file's own folder and, where nothing is there, from the
    working directory, which is what the trainers themselves do.
    """
    path = Path(location).expanduser()
    near = beside.parent / path
    return path if path.is_absolute() or (path.exists() and not near.exists()) else near


def take(table: dict[str, Any], key: str, kind: type[T], default: T, where: str) -> T:
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
