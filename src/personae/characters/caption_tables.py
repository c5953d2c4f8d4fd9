"""Tables that list pictures with their captions: JSONL, CSV, and kohya's JSON dictionary.

One row per picture: `file_name` (or `image`, `image_path`), `text` (or `caption`, `prompt`,
`tags`), and if wanted `repeats`. It knows nothing about characters.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from personae.characters.reference import Reference
from personae.characters.sidecars import CaptionRule, check_caption, clean, find_mask, pictures_in
from personae.errors import CharacterError

_PICTURE_KEYS: Final = ("file_name", "image", "image_path")
_CAPTION_KEYS: Final = ("text", "caption", "prompt", "tags")


@dataclass(frozen=True, slots=True)
class TableContent:
    """What a table lists.

    Attributes:
        references: the pictures in the order of the rows.
        notes: pictures beside the table that it does not list.
        problems: rows that cannot be used, one line each.
    """

    references: tuple[Reference, ...]
    notes: tuple[str, ...]
    problems: tuple[str, ...]


def is_caption_dictionary(path: Path) -> bool:
    """Say whether a JSON file is kohya's `{picture path: {"caption", "tags"}}`."""
    if path.suffix != ".json":
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
    for row, where in _rows(table):
        try:
            references.append(_reference({"repeats": repeats, **row}, where, folder))
        except CharacterError as error:
            problems.append(str(error))
    if not references and not problems:
        raise CharacterError(f"{table}: lists no pictures; write one row for each")
    listed = {reference.path for reference in references}
    notes = [
        f"{path}: has no row in {table.name} and is not used"
        for path in pictures_in(folder)
        if path not in listed
    ]
    return TableContent(tuple(references), tuple(notes), tuple(problems))


def _rows(table: Path) -> Iterator[tuple[dict[str, Any], str]]:
    text = _text(table)
    match table.suffix:
        case ".csv":
            for number, row in enumerate(_csv_rows(text, table), start=2):
                yield _filled(row), f"{table}, line {number}"
        case ".json":
            for picture, facts in _object(text, str(table)).items():
                if not isinstance(facts, dict):
                    raise CharacterError(f"{table}: '{picture}' is {facts!r}; expected an object")
                yield {"file_name": picture, **facts}, f"{table}, '{picture}'"
        case _:
            for number, line in enumerate(text.splitlines(), start=1):
                if line.strip():
                    yield _object(line, f"{table}, line {number}"), f"{table}, line {number}"


def _csv_rows(text: str, table: Path) -> list[dict[str, str]]:
    try:
        return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise CharacterError(f"{table}: is not valid CSV ({error})") from None


def _text(table: Path) -> str:
    try:
        return table.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise CharacterError(f"{table}: is not UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        raise CharacterError(f"{table}: cannot be read ({error.strerror})") from None


def _filled(row: dict[str, str]) -> dict[str, Any]:
    """Return a CSV row without its empty cells, whole numbers of `repeats` as such."""
    filled: dict[str, Any] = {key: value for key, value in row.items() if key and value}
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


def _reference(row: dict[str, Any], where: str, folder: Path) -> Reference:
    picture = folder / _picture_name(row, where, folder)
    if not picture.is_file():
        raise CharacterError(f"{picture}: does not exist, though {where} names it")
    repeats = row["repeats"]
    if not isinstance(repeats, int) or repeats < 1:
        raise CharacterError(f"{where}: repeats is {repeats!r}; it must be a whole number above 0")
    return Reference(picture, _caption(row, where, picture), repeats, find_mask(picture))


def _picture_name(row: dict[str, Any], where: str, folder: Path) -> str:
    key = next((key for key in _PICTURE_KEYS if key in row), None)
    if key is None:
        raise CharacterError(f"{where}: has no 'file_name'; write which picture it is about")
    inside = str(row[key]).replace("\\", "/").removeprefix(f"{folder.as_posix()}/")
    path = PurePosixPath(inside)
    # A table travels with downloaded data; it must not reach for files elsewhere.
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise CharacterError(f"{where}: names '{row[key]}', which is not inside {folder}")
    return inside


def _caption(row: dict[str, Any], where: str, picture: Path) -> str | None:
    """Return the caption of a row, or of the file beside the picture if the row has none."""
    beside = CaptionRule().caption(picture)
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
