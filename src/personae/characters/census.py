"""What lies in the folders of a training set, what of it is used, and what is left and why.

Every layout is held to the same account: it says what it read, and everything beside it that
looks like a picture, a caption or a mask is counted here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from PIL import Image

from personae.characters.dataset import FoundPictures
from personae.characters.folder_index import folded, list_folder
from personae.characters.image_files import SUFFIXES
from personae.characters.sidecars import CAPTION_SUFFIXES, MASKS, without_labels
from personae.characters.unused import Unused
from personae.errors import CharacterError

Kind = Literal["picture", "caption", "mask"]

DEEPEST: Final = 4
"""Folders inside folders that are looked into for what was left out."""

MOST_FILES: Final = 50_000
"""Files after which the search for what was left out ends; no training set is as large."""

_FOREIGN: Final = frozenset(
    {".heic", ".heif", ".avif", ".jxl", ".psd", ".svg", ".mp4", ".webm", ".mov", ".raw", ".dng"}
)
_NO_PICTURES: Final = frozenset({".pdf", ".ps", ".eps", ".h5", ".hdf", ".grib", ".bufr", ".fit"})
_RUN_FILE: Final = "events.jsonl"


@dataclass(frozen=True, slots=True)
class Tally:
    """How many files of a kind were found, and how many of them are used."""

    found: int
    used: int


@dataclass(frozen=True, slots=True)
class Census:
    """What was found in the folders of a training set.

    Attributes:
        pictures: files that are pictures, masks left out.
        captions: caption files, and captions from a table or a default.
        masks: mask files.
        unused: each file that is not used.
    """

    pictures: Tally
    captions: Tally
    masks: Tally
    unused: tuple[Unused, ...]

    @property
    def tallies(self) -> dict[Kind, Tally]:
        """Return the counts by kind of file."""
        return {"picture": self.pictures, "caption": self.captions, "mask": self.masks}


def take_census(path: Path, reading: FoundPictures) -> Census:
    """Return what lies at `path` and beside the pictures of `reading`, and what of it is used.

    Args:
        path: the folder or file that was read.
        reading: what its layout found.
    """
    used = {kind: _keys(paths) for kind, paths in _used(reading).items()}
    reasons = {_key(one.path): one.reason for one in reading.unused}
    failed = {_key(Path(problem.partition(": ")[0])) for problem in reading.problems}
    pairs = {(place, folded(Path(name).stem)) for place, name in failed}
    folders = {place for place, _ in used["picture"]}
    counts = {kind: len(keys) for kind, keys in used.items()}
    unused = []
    for kind, file in _files(path, reading):
        key = _key(file)
        if any(key in keys for keys in used.values()):
            continue
        counts[kind] += 1
        if key in failed or (key[0], folded(file.stem)) in pairs:
            continue  # it is named already with what is wrong
        reason = reasons.get(key) or _reason(kind, file, used, in_set=key[0] in folders)
        unused.append(Unused(file, reason))
    references = reading.references + reading.held_out + reading.prior
    listed = len({r.path for r in references if r.caption is not None and r.caption_file is None})
    pictures, captions, masks = (Tally(counts[kind], len(used[kind])) for kind in used)
    captions = Tally(captions.found + listed, captions.used + listed)
    return Census(pictures, captions, masks, tuple(unused))


def _used(reading: FoundPictures) -> dict[Kind, list[Path]]:
    references = reading.references + reading.held_out + reading.prior
    return {
        "picture": [r.path for r in references],
        "caption": [r.caption_file for r in references if r.caption_file is not None],
        "mask": [r.mask for r in references if r.mask is not None],
    }


def _key(file: Path) -> tuple[str, str]:
    """Return the real folder and the name, so that one file has one key however it is reached."""
    return os.path.realpath(file.parent), file.name


def _keys(files: Iterable[Path]) -> set[tuple[str, str]]:
    return {_key(file) for file in files}


def _files(path: Path, reading: FoundPictures) -> Iterator[tuple[Kind, Path]]:
    """Yield each file that looks like a picture, a caption or a mask, with its kind."""
    used = _used(reading)
    masks = {os.path.realpath(mask.parent) for mask in used["mask"]}
    homes = {os.path.realpath(picture.parent): picture.parent for picture in used["picture"]}
    masks -= homes.keys()
    roots = [(path, DEEPEST)] if path.is_dir() else []
    roots += [(folder, DEEPEST) for folder in homes.values()]
    roots += [(mask.parent, 0) for mask in used["mask"]]
    seen: set[str] = set()
    count = 0
    while roots and count < MOST_FILES:
        folder, depth = roots.pop(0)
        if os.path.realpath(folder) in seen:
            continue
        seen.add(os.path.realpath(folder))
        entries = _entries(folder)
        count += len(entries)
        yield from _of_folder(entries, os.path.realpath(folder) in masks)
        if depth:
            roots += [(entry, depth - 1) for entry in entries if entry.is_dir()]


def _entries(folder: Path) -> list[Path]:
    """Return what lies in a folder; nothing for one that may not be read or holds a run."""
    try:
        entries = list_folder(folder)
    except CharacterError:
        return []
    return [] if any(entry.name == _RUN_FILE for entry in entries) else entries


def _of_folder(entries: list[Path], holds_masks: bool) -> Iterator[tuple[Kind, Path]]:
    pictures = [entry for entry in entries if _is_picture(entry)]
    plain = set(without_labels(pictures))
    for picture in pictures:
        mask = holds_masks or picture not in plain or folded(picture.parent.name) == MASKS
        yield ("mask" if mask else "picture"), picture
    for entry in entries:
        if pictures and folded(entry.suffix) in CAPTION_SUFFIXES and not entry.is_dir():
            yield "caption", entry


def _is_picture(path: Path) -> bool:
    """Say whether a file is named like a picture, of whatever program."""
    ending = path.suffix.lower()
    known = ending in SUFFIXES or ending in _FOREIGN
    return (known or ending in Image.registered_extensions().keys() - _NO_PICTURES) and (
        not path.is_dir()
    )


def _reason(kind: Kind, file: Path, used: dict[Kind, set[tuple[str, str]]], *, in_set: bool) -> str:
    """Return why nothing uses a file."""
    if kind == "picture":
        if file.suffix.lower() not in SUFFIXES:
            return "is not read; save it as PNG, JPEG or WebP"
        if not file.exists():
            return "links to nothing, so it is not read; mend the link, or delete it"
        if not in_set:
            return "lies in a folder that is not read; move it to the others, or open that folder"
        return "is not named by the dataset and not used"
    if kind == "mask":
        return "is the mask of no picture that is used; give it the name of its picture"
    stem = folded(file.stem)
    if any(
        place == _key(file)[0] and folded(Path(name).stem) == stem
        for place, name in used["picture"]
    ):
        return "is not read: the picture has another caption, or the dataset names another ending"
    return "has no picture of that name beside it"
