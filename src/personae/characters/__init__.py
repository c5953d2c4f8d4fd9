"""Pictures of someone: folders, captions, masks, and the layouts of other tools.

`Character.open` reads a folder; a plug-in author needs `DatasetLayout` from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from personae.core.doors import door

if TYPE_CHECKING:
    from personae.characters.character import Character
    from personae.characters.checks.inspection import inspect_folder
    from personae.characters.dataset import DatasetLayout, FolderRule, FoundPictures, read_folder
    from personae.characters.reference import Reference
    from personae.characters.scaffold import init_character
    from personae.characters.sidecars import CaptionRule

__all__ = [
    "CaptionRule",
    "Character",
    "DatasetLayout",
    "FolderRule",
    "FoundPictures",
    "Reference",
    "init_character",
    "inspect_folder",
    "read_folder",
]

__getattr__, __dir__ = door(
    __name__,
    {
        "CaptionRule": "sidecars",
        "Character": "character",
        "DatasetLayout": "dataset",
        "FolderRule": "dataset",
        "FoundPictures": "dataset",
        "Reference": "reference",
        "init_character": "scaffold",
        "inspect_folder": "checks.inspection",
        "read_folder": "dataset",
    },
)
