"""kohya's folders: `parent/10_mira girl/a.png`, ten repeats of "mira girl".

Also the layout of its graphical front end, `parent/img/10_mira girl` with class pictures in
`parent/reg/1_girl`, which may lie beside `10_mira girl` as well.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from personae.characters.dataset import (
    DatasetLayout,
    FolderRule,
    FoundPictures,
    Role,
    at_least_one,
    merge,
    read_folder,
)
from personae.characters.folder_index import FolderIndex, list_folder
from personae.characters.sidecars import CaptionRule, is_picture
from personae.errors import CharacterError

_FOLDER: Final = re.compile(r"(\d+)_(.+)")


class TokenFolders(DatasetLayout):
    """Subfolders `N_name class noun`: N repeats, and the words as caption where none is written."""

    name = "token_folders"
    title = "subfolders N_name class"

    def matches(self, path: Path) -> bool:
        """A folder that has at least one subfolder of that form with a picture in it."""
        return path.is_dir() and bool(_token_folders(path) or _token_folders(_inside(path, "img")))

    def read(self, path: Path) -> FoundPictures:
        """Read each subfolder with its repeats."""
        parent = path if _token_folders(path) else _inside(path, "img")
        loose = [file for file in list_folder(parent) if is_picture(file)]
        if loose:
            raise CharacterError(
                f"{loose[0]}: lies beside N_token folders, which hold the pictures here; "
                "move it into one of them"
            )
        parts = [_read_subfolder(folder, "references") for folder in _token_folders(parent)]
        classes = _token_folders(_inside(path, "reg"))
        parts += [_read_subfolder(folder, "prior") for folder in classes]
        tokens = _repeats_and_tokens(_token_folders(parent)[0])[1]
        name, _, noun = tokens.partition(" ")
        return merge(parts, name=name, class_noun=noun or None, phrase=tokens)


def _inside(path: Path, name: str) -> Path:
    """Return the folder of that name in whatever case it is written."""
    return FolderIndex().find(path, name) or path / name


def _token_folders(parent: Path) -> list[Path]:
    if not parent.is_dir():
        return []
    return [
        folder
        for folder in list_folder(parent)
        if folder.is_dir()
        and _FOLDER.fullmatch(folder.name)
        and any(map(is_picture, list_folder(folder)))
    ]


def _read_subfolder(folder: Path, role: Role) -> FoundPictures:
    repeats, tokens = _repeats_and_tokens(folder)
    captions = CaptionRule(default=tokens, first_line=True)
    rule = FolderRule(captions, role, repeats=at_least_one(repeats, str(folder)))
    return read_folder(folder, rule)


def _repeats_and_tokens(folder: Path) -> tuple[int, str]:
    repeats, _, tokens = folder.name.partition("_")  # both are there: _FOLDER has matched
    return int(repeats), tokens.replace("_", " ")
