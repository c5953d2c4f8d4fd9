"""Tables that list pictures with their captions: JSONL, CSV, and kohya's JSON dictionary.

One row per picture: `file_name` (or `image`, `image_path`), `text` (or `caption`, `prompt`,
`tags`), and if wanted `repeats`. Names of columns are compared without case and blanks; other
columns are mentioned. It knows nothing about characters.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from personae.characters.folder_index import FolderIndex
from personae.characters.reference import Reference
from personae.characters.sidecars import (
    CaptionRule,
    check_caption,
    clean,
    find_mask,
    is_picture,
    pictures_in,
    without_labels,
)
from personae.characters.unused import Unused
from personae.errors import CharacterError

_PICTURE_KEYS: Final = ("file_name", "image", "image_path")
_CAPTION_KEYS: Final = ("text", "caption", "prompt", "tags")


@dataclass(frozen=True, slots=True)
class TableContent:
    """What a table lists.

    Attributes:
        references: the pictures in the order of the rows.
        notes: columns that are not taken over.
        problems: rows that cannot be used, one line each.
        unused: pictures beside the table that it does not list.
    """

    references: tuple[Reference, ...]
    notes: tuple[str, ...]
    problems: tuple[str, ...]
    unused: tuple[Unused, ...]


def is_caption_dictionary(path: Path) -> bool:
    """Say whether a JSON file is kohya's `{picture path: {"caption", "tags"}}`."""
    if path.suffix.lower() != ".json":
        return False
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    entries = list(values.values()) if isinstance(values, dict) else []
    return bool(entries) and all(
        isinstance(entry, dict) and {"caption", "tags"} & set(entry) for entry in entries
    )


def read_table(table: Path, folder: Path, *, repeats: int = 1) -> TableContent:
    """Return the pictures that a table lists; their paths are relative to `folder`.

    Args:
        table: a `.jsonl`, `.csv` or `.json` file.
        folder: where its pictures lie.
        repeats: how often a picture is shown whose row does not say.

    Raises:
        CharacterError: the table is unreadable or empty.
    """
    references, problems = [], []
    index, columns = FolderIndex(), dict[str, None]()
    for row, where in _rows(table):
        columns |= dict.fromkeys(row)
        try:
            references.append(_reference({"repeats": repeats, **row}, where, folder, index))
        except CharacterError as error:
            problems.append(str(error))
    if not references and not problems:
        raise CharacterError(f"{table}: lists no pictures; write one row for each")
    listed = {reference.path for reference in references}
    reason = f"has no row in {table.name} and is not used"
    unused = [Unused(path, reason) for path in pictures_in(folder) if path not in listed]
    return TableContent(
        tuple(references), _columns_left(columns, table), tuple(problems), tuple(unused)
    )


def _columns_left(columns: dict[str, None], table: Path) -> tuple[str, ...]:
    known = {*_PICTURE_KEYS, *_CAPTION_KEYS, "repeats"}
    left = ", ".join(f"'{column}'" for column in columns if column not in known)
    if not left:
        return ()
    captions = ", ".join(_CAPTION_KEYS)
    return (f"{table}: {left} not taken over; captions are read from {captions}",)


def _rows(table: Path) -> Iterator[tuple[dict[str, Any], str]]:
    text = _text(table)
    match table.suffix.lower():
        case ".csv":
            for number, row in enumerate(_csv_rows(text, table), start=2):
                where = f"{table}, line {number}"
                yield _filled(row, where), where
        case ".json":
            for picture, facts in _object(text, str(table)).items():
                if not isinstance(facts, dict):
                    raise CharacterError(f"{table}: '{picture}' is {facts!r}; expected an object")
                row = {"file_name": picture, **_joined(facts)}
                yield row, f"{table}, '{picture}'"
        case _:
            # Not splitlines: JSON may hold U+2028 and its like inside a text.
            for number, line in enumerate(text.split("\n"), start=1):
                if line.strip():
                    row = _object(line, f"{table}, line {number}")
                    yield _plain_keys(row), f"{table}, line {number}"


def _joined(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of kohya's dictionary with its tags behind the caption, as kohya has it."""
    caption, tags = facts.get("caption"), facts.get("tags")
    if isinstance(caption, str) and isinstance(tags, str) and caption and tags:
        facts = {**facts, "caption": f"{caption}, {tags}"}
    return facts


def _plain_keys(row: dict[str, Any]) -> dict[str, Any]:
    return {key.strip().lower(): value for key, value in row.items()}


def _csv_rows(text: str, table: Path) -> list[dict[Any, Any]]:
    lines = io.StringIO(text, newline="")
    try:
        return list(csv.DictReader(lines, strict=True, skipinitialspace=True))
    except csv.Error as error:
        raise CharacterError(f"{table}: is not valid CSV ({error})") from None


def _text(table: Path) -> str:
    try:
        return table.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise CharacterError(f"{table}: is not UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        raise CharacterError(f"{table}: cannot be read ({error.strerror})") from None


def _filled(row: dict[Any, Any], where: str) -> dict[str, Any]:
    """Return a CSV row without its empty cells, whole numbers of `repeats` as such."""
    beyond = row.pop(None, None)
    if beyond:
        raise CharacterError(
            f"{where}: has more cells than columns ({beyond[0].strip()!r}); "
            'write captions that hold commas in "quotes"'
        )
    cells = {key: value.strip() for key, value in row.items() if key and value}
    filled: dict[str, Any] = _plain_keys({key: value for key, value in cells.items() if value})
    if str(filled.get("repeats", "")).isdecimal():
        filled["repeats"] = int(filled["repeats"])
    return filled


def _object(text: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CharacterError(f"{where}: is not JSON ({error})") from None
    if not isinstance(row, dict):
        raise CharacterError(f"{where}: is {text.strip()[:40]}; expected an object with file_name")
    return row


def _reference(row: dict[str, Any], where: str, folder: Path, index: FolderIndex) -> Reference:
    picture = _picture(row, where, folder, index)
    repeats = row["repeats"]
    if not isinstance(repeats, int) or repeats < 1:
        raise CharacterError(f"{where}: repeats is {repeats!r}; it must be a whole number above 0")
    file = CaptionRule().find(picture, index)
    caption = _caption(row, where, picture, CaptionRule().read(file))
    return Reference(picture, caption, repeats, find_mask(picture, index), caption_file=file)


def _picture(row: dict[str, Any], where: str, folder: Path, index: FolderIndex) -> Path:
    key = next((key for key in _PICTURE_KEYS if key in row), None)
    if key is None:
        raise CharacterError(f"{where}: has no 'file_name'; write which picture it is about")
    parts = _parts(str(row[key]), folder)
    # A table travels with downloaded data; it must not reach for files elsewhere.
    if not parts or ".." in parts:
        raise CharacterError(f"{where}: names '{row[key]}', which is not inside {folder}")
    found = index.find_below(folder, parts)
    if found is not None and found.is_file():
        return found
    # kohya leaves the ending out unless told otherwise.
    parent = index.find_below(folder, parts[:-1]) or folder
    named = without_labels(filter(is_picture, index.beginning(parent, parts[-1])))
    if len(named) != 1:
        raise CharacterError(
            f"{folder.joinpath(*parts)}: does not exist, though {where} names it"
            if not named
            else f"{where}: names both {named[0].name} and {named[1].name}; write the ending"
        )
    return named[0]


def _parts(written: str, folder: Path) -> tuple[str, ...]:
    """Return the path of a picture from `folder`; nothing if it does not lie inside.

    Tables name pictures from their folder, from the working directory, or absolutely.
    """
    path = Path(written.replace("\\", "/"))
    if not path.is_absolute() and (folder / path).exists():
        return path.parts
    try:
        return Path(os.path.abspath(path)).relative_to(os.path.abspath(folder)).parts
    except ValueError:
        return () if path.is_absolute() else path.parts


def _caption(row: dict[str, Any], where: str, picture: Path, beside: str | None) -> str | None:
    """Return the caption of a row, or of the file beside the picture if the row has none."""
    written = next((row[key] for key in _CAPTION_KEYS if row.get(key) is not None), None)
    if written is None:
        return beside
    if not isinstance(written, str):
        raise CharacterError(f"{where}: the caption is {written!r}; expected text")
    caption = clean(check_caption(written, where))
    if beside is not None and beside != caption:
        raise CharacterError(
            f"{where}: the caption differs from the file beside {picture.name}; delete one of them"
        )
    return caption
