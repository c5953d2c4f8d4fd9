"""A folder of pictures with `.txt` or `.caption` files beside them; the fallback."""

from __future__ import annotations

from pathlib import Path

from personae.characters.dataset import DatasetLayout, FolderRule, FoundPictures, read_folder


class Flat(DatasetLayout):
    """`folder/a.png`, `folder/a.txt`, ...; `.txt` is preferred where both are there."""

    name = "flat"
    title = "folder of pictures with .txt captions"
    fallback = True

    def matches(self, path: Path) -> bool:
        """Any folder will do."""
        return path.is_dir()

    def read(self, path: Path) -> FoundPictures:
        """Read the pictures directly in the folder; those of subfolders are counted as left."""
        return read_folder(path, FolderRule())
