"""Hugging Face's imagefolder: `metadata.jsonl` or `metadata.csv` beside the pictures.

The JSONL files of invoke-training (`image`, `text`) and of kohya's fine-tuning (`image_path`,
`caption`) and kohya's JSON (`{path: {"caption": ...}}`) hold the same facts and are read too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from personae.characters.caption_tables import is_caption_dictionary, read_table
from personae.characters.dataset import Convention, FoundPictures
from personae.errors import CharacterError

_FILES: Final = ("metadata.jsonl", "metadata.csv")


class ImageFolder(Convention):
    """A table with one row per picture: `file_name`, `text` and, if wanted, `repeats`."""

    name = "imagefolder"
    layout = "metadata.jsonl or .csv with file_name and text"

    def matches(self, path: Path) -> bool:
        """A folder with such a table, or the table itself."""
        if path.is_dir():
            return any((path / name).is_file() for name in _FILES)
        return path.suffix in (".jsonl", ".csv") or is_caption_dictionary(path)

    def read(self, path: Path) -> FoundPictures:
        """Read the table; a picture without a row is mentioned, not used."""
        table = _table(path)
        found = read_table(table, table.parent)
        return FoundPictures(found.references, notes=found.notes, problems=found.problems)


def _table(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = [path / name for name in _FILES if (path / name).is_file()]
    if len(found) > 1:
        raise CharacterError(f"{path}: has both {_FILES[0]} and {_FILES[1]}; delete one")
    return found[0]
