"""What lies beside a picture in its folder: captions, masks, and which files are pictures.

The rules are those that trainers share; a dataset convention chooses among them. It knows
nothing about characters.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from personae.characters.image_files import SUFFIXES
from personae.errors import CharacterError

CAPTION_SUFFIXES: Final = (".txt", ".caption")
"""Sidecar captions in order of preference: `.txt` is what most tools and people write."""

MAX_CAPTION_CHARACTERS: Final = 10_000
"""A text encoder reads 77 tokens, some 400 characters; a file this long is not a caption."""

FOREIGN_SUFFIXES: Final = frozenset(
    {".gif", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jxl", ".psd", ".svg", ".mp4", ".webm"}
)
"""Pictures that other programs know and personae does not read: reported, never dropped."""


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

    def caption(self, picture: Path) -> str | None:
        """Return the caption of `picture`, or None.

        Raises:
            CharacterError: the caption file is empty, not UTF-8, or no caption.
        """
        files = [path for end in self.suffixes if (path := picture.with_suffix(end)).is_file()]
        if not files:
            return self.default
        text = read_caption(files[0])
        return clean(text.strip().splitlines()[0] if self.first_line else text)


def list_folder(folder: Path) -> list[Path]:
    """Return the entries of a folder by name, hidden ones left out.

    Raises:
        CharacterError: the folder is missing, no folder, or may not be read.
    """
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
    except FileNotFoundError:
        raise CharacterError(f"{folder}: does not exist; check the path") from None
    except NotADirectoryError:
        raise CharacterError(f"{folder}: is a file; a folder of pictures is expected") from None
    except PermissionError:
        raise CharacterError(
            f"{folder}: may not be read; change its permissions (chmod u+rx)"
        ) from None
    except OSError as error:
        raise CharacterError(f"{folder}: cannot be read ({error.strerror})") from None
    return [folder / name for name in names]


def is_picture(path: Path) -> bool:
    """Say whether the file name is that of a picture personae reads."""
    return path.suffix.lower() in SUFFIXES and path.is_file()


def is_label(path: Path, pictures: Iterable[Path]) -> bool:
    """Say whether a picture file is the mask or condition of another picture beside it."""
    if path.stem.endswith(("-masklabel", "-condlabel")):
        return True
    owner, found, _ = path.stem.rpartition("_mask")
    return bool(found) and path.stem.endswith("_mask") and owner in {p.stem for p in pictures}


def pictures_in(folder: Path, *, recursive: bool = False) -> list[Path]:
    """Return the pictures of a folder by name, without masks, conditions and `masks/`.

    Raises:
        CharacterError: the folder cannot be read.
    """
    entries = list_folder(folder)
    candidates = [path for path in entries if is_picture(path)]
    found = [path for path in candidates if not is_label(path, candidates)]
    if recursive:
        for path in entries:
            if path.is_dir() and path.name != "masks":
                found += pictures_in(path, recursive=True)
    return found


def find_mask(picture: Path, *, folder: Path | None = None) -> Path | None:
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
        stems += [(beside / "masks", picture.stem)]
    found = [
        path
        for place, stem in stems
        for suffix in sorted(SUFFIXES)
        if (path := place / f"{stem}{suffix}").is_file()
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


def clean(text: str) -> str:
    """Return a caption on one line, with single spaces."""
    return " ".join(text.split())


def notes_on(folder: Path, pictures: Iterable[Path], rule: CaptionRule) -> list[str]:
    """Return one line on each thing in a folder that is not used as its owner may expect."""
    entries = list_folder(folder)
    stems = {path.stem for path in pictures}
    notes = [
        f"{path}: is not read; save it as PNG, JPEG or WebP"
        for path in entries
        if path.suffix.lower() in FOREIGN_SUFFIXES
    ]
    notes += [
        f"{path}: has no picture of that name beside it"
        for path in entries
        if path.suffix.lower() in rule.suffixes and path.stem not in stems
    ]
    notes += [
        f"{path}: links to nothing, so it is not read; mend the link, or delete it"
        for path in entries
        if path.suffix.lower() in SUFFIXES and path.is_symlink() and not path.exists()
    ]
    doubled = Counter(
        path.stem for path in entries if path.suffix in rule.suffixes and path.stem in stems
    )
    notes += [
        f"{folder / stem}: has both {rule.suffixes[0]} and {rule.suffixes[1]}; "
        f"{rule.suffixes[0]} is read"
        for stem, count in doubled.items()
        if count > 1
    ]
    return notes
