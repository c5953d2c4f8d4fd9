"""Hugging Face's imagefolder: `metadata.jsonl` or `metadata.csv` beside the pictures.

The JSONL files of invoke-training (`image`, `text`) and of kohya's fine-tuning (`image_path`,
`caption`) and kohya's JSON (`{path: {"caption": ...}}`) hold the same facts and are read too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from personae.characters.caption_tables import is_caption_dictionary, read_table
from personae.characters.dataset import DatasetLayout, FoundPictures
from personae.characters.folder_index import FolderIndex
from personae.errors import CharacterError

_FILES: Final = ("metadata.jsonl", "metadata.csv")


class ImageFolder(DatasetLayout):
    """A table with one row per picture: `file_name`, `text` and, if wanted, `repeats`."""

    name = "imagefolder"
    title = "metadata.jsonl or .csv with file_name and text"

    def matches(self, path: Path) -> bool:
        """A folder with such a table, or the table itself."""
        if path.is_dir():
            return bool(_tables(path))
        return path.suffix.lower() in (".jsonl", ".csv") or is_caption_dictionary(path)

    def read(self, path: Path) -> FoundPictures:
        """Read the table; a picture without a row is mentioned, not used."""
        table = _table(path)
        found = read_table(table, table.parent)
        return FoundPictures(
            found.references, notes=found.notes, problems=found.problems, unused=found.unused
        )


def _table(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = _tables(path)
    if len(found) > 1:
        raise CharacterError(f"{path}: has both {found[0].name} and {found[1].name}; delete one")
    return found[0]


def _tables(folder: Path) -> list[Path]:
    index = FolderIndex()
    found = [index.find(folder, name) for name in _FILES]
    return [path for path in found if path is not None and path.is_file()]
