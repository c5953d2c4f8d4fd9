"""What lies beside a picture in its folder: captions, masks, and which files are pictures.

The rules are those that trainers share; a dataset layout chooses among them. It knows
nothing about characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from personae.characters.folder_index import FolderIndex, folded, list_folder
from personae.characters.image_files import SUFFIXES
from personae.errors import CharacterError

CAPTION_SUFFIXES: Final = (".txt", ".caption")
"""Sidecar captions in order of preference: `.txt` is what most tools and people write."""

MASKS: Final = "masks"
"""Folder beside pictures that holds their masks under the same names."""

MAX_CAPTION_CHARACTERS: Final = 10_000
"""A text encoder reads 77 tokens, some 400 characters; a file this long is not a caption."""


@dataclass(frozen=True, slots=True)
class CaptionRule:
    """Where captions are and how a file becomes one.

    Attributes:
        suffixes: file endings tried beside the picture, in order.
        default: the caption of a picture that has no file.
        first_line: only the first line counts (kohya, OneTrainer); else lines are joined.
    """

    suffixes: tuple[str, ...] = CAPTION_SUFFIXES
    default: str | None = None
    first_line: bool = False

    def find(self, picture: Path, index: FolderIndex) -> Path | None:
        """Return the caption file of `picture`, or None."""
        names = [f"{picture.stem}{ending}" for ending in self.suffixes]
        found = [index.find(picture.parent, name) for name in names]
        return next((path for path in found if path is not None and path.is_file()), None)

    def read(self, file: Path | None) -> str | None:
        """Return the caption in `file`, the default where there is none.

        Raises:
            CharacterError: the caption file is empty, not UTF-8, or no caption.
        """
        if file is None:
            return self.default
        text = read_caption(file)
        return clean(first_line(text) if self.first_line else text)


def is_picture(path: Path) -> bool:
    """Say whether the file name is that of a picture personae reads."""
    return path.suffix.lower() in SUFFIXES and path.is_file()


def without_labels(candidates: Iterable[Path]) -> list[Path]:
    """Return the pictures of one folder that are not the mask or condition of another there."""
    pictures = list(candidates)
    stems = {folded(path.stem) for path in pictures}

    def is_label(path: Path) -> bool:
        stem = folded(path.stem)
        owner = stem.removesuffix("_mask")
        return stem.endswith(("-masklabel", "-condlabel")) or (owner != stem and owner in stems)

    return [path for path in pictures if not is_label(path)]


def pictures_in(folder: Path, *, recursive: bool = False) -> list[Path]:
    """Return the pictures of a folder by name, without masks, conditions and `masks/`.

    Raises:
        CharacterError: the folder cannot be read.
    """
    entries = list_folder(folder)
    candidates = [path for path in entries if is_picture(path)]
    found = without_labels(candidates)
    if recursive:
        for path in entries:
            if path.is_dir() and folded(path.name) != MASKS:
                found += pictures_in(path, recursive=True)
    return found


def find_mask(picture: Path, index: FolderIndex, *, folder: Path | None = None) -> Path | None:
    """Return the mask file of a picture, or None.

    Looks for `<stem>-masklabel.png` (OneTrainer), `<stem>_mask.*`, `masks/<stem>.*`, or, where a
    `folder` of masks is given (ai-toolkit), only there.

    Raises:
        CharacterError: two files claim to be the mask.
    """
    if folder is not None:
        stems = [(folder, picture.stem)]
    else:
        beside = picture.parent
        stems = [(beside, f"{picture.stem}-masklabel"), (beside, f"{picture.stem}_mask")]
        stems += [(index.find(beside, MASKS) or beside / MASKS, picture.stem)]
    found = [
        path for place, stem in stems for path in index.beginning(place, stem) if is_picture(path)
    ]
    if len(found) > 1:
        raise CharacterError(
            f"{picture}: has two masks, {found[0].name} and {found[1].name}; delete one"
        )
    return found[0] if found else None


def read_caption(path: Path) -> str:
    """Return the text of a caption file.

    Raises:
        CharacterError: unreadable, not UTF-8, empty, binary, or too long to be a caption.
    """
    try:
        if path.stat().st_size > 4 * MAX_CAPTION_CHARACTERS:
            raise CharacterError(
                f"{path}: holds {path.stat().st_size} bytes, which is no caption; "
                "write one sentence about the picture"
            )
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CharacterError(
            f"{path}: is not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from None
    except PermissionError:
        raise CharacterError(f"{path}: may not be read; change its permissions") from None
    except OSError as error:
        raise CharacterError(f"{path}: cannot be read ({error.strerror})") from None
    return check_caption(text, path)


def check_caption(text: str, where: Path | str) -> str:
    """Return `text` if it can be a caption; `where` names its file for the error.

    Raises:
        CharacterError: empty, binary, or too long to be a caption.
    """
    if not text.strip():
        raise CharacterError(f"{where}: the caption is empty; write one, or delete it")
    if "\0" in text:
        raise CharacterError(f"{where}: holds zero bytes; save it as UTF-8 text")
    if len(text) > MAX_CAPTION_CHARACTERS:
        raise CharacterError(
            f"{where}: the caption has {len(text)} characters; "
            f"at most {MAX_CAPTION_CHARACTERS} are read, and 77 tokens are learnt from"
        )
    return text


def first_line(text: str) -> str:
    """Return the first line of a text that is not empty; lines end at \\n, \\r\\n or \\r alone."""
    return re.split(r"[\r\n]", text.strip(), maxsplit=1)[0]


def clean(text: str) -> str:
    """Return a caption on one line, with single spaces."""
    return " ".join(text.split())
