"""A folder of pictures with `.txt` or `.caption` files beside them; the fallback."""

from __future__ import annotations

from pathlib import Path

from personae.characters.dataset import Convention, FolderRule, FoundPictures, merge, read_folder
from personae.characters.sidecars import is_picture, list_folder
from personae.errors import CharacterError


class Flat(Convention):
    """`folder/a.png`, `folder/a.txt`, ...; `.txt` is preferred where both are there."""

    name = "flat"
    layout = "folder of pictures with .txt captions"
    fallback = True

    def matches(self, path: Path) -> bool:
        """Any folder will do."""
        return path.is_dir()

    def read(self, path: Path) -> FoundPictures:
        """Read the pictures directly in the folder; subfolders are mentioned, not read."""
        unread = [
            f"{folder}: pictures of subfolders are not read; move them up, or open that folder"
            for folder in list_folder(path)
            if folder.is_dir() and folder.name != "masks" and _holds_pictures(folder)
        ]
        return merge([read_folder(path, FolderRule()), FoundPictures(notes=tuple(unread))])


def _holds_pictures(folder: Path) -> bool:
    try:
        return any(map(is_picture, list_folder(folder)))
    except CharacterError:
        return False  # a folder that may not be read is no concern of the pictures beside it
