"""Names of files as people mean them: two that differ in case or Unicode form are one.

Cameras and Windows write `A.JPG` and `A.TXT`; macOS decomposes letters ("é" as "e" and an accent),
Linux and captions compose them. Nothing here knows what a file is for.
"""

from __future__ import annotations

import os
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

from personae.errors import CharacterError


def folded(name: str) -> str:
    """Return a name in the form in which names are compared: composed (NFC), without case."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


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


class FolderIndex:
    """Finds entries of folders by name, listing each folder once.

    It shows folders as they were when it first looked; make a new one for each reading.
    """

    def __init__(self) -> None:
        """Begin without any listing."""
        self._folders: dict[Path, _Listing] = {}

    def find(self, folder: Path, name: str) -> Path | None:
        """Return the entry of that name, the exact one first; None if there is none."""
        found = self._listing(folder).names.get(folded(name), [])
        return next((path for path in found if path.name == name), found[0] if found else None)

    def find_below(self, folder: Path, parts: tuple[str, ...]) -> Path | None:
        """Return the entry reached by `parts` from `folder`, each found as `find` does."""
        place: Path | None = folder
        for part in parts:
            place = self.find(place, part) if place is not None else None
        return place

    def beginning(self, folder: Path, stem: str) -> list[Path]:
        """Return the entries whose name without its ending is `stem`."""
        return self._listing(folder).stems.get(folded(stem), [])

    def _listing(self, folder: Path) -> _Listing:
        if folder not in self._folders:
            try:
                entries = list_folder(folder)
            except CharacterError:
                entries = []  # a folder that is not there holds nothing
            listing = self._folders[folder] = _Listing()
            for path in entries:
                listing.names.setdefault(folded(path.name), []).append(path)
                listing.stems.setdefault(folded(path.stem), []).append(path)
        return self._folders[folder]


@dataclass(frozen=True, slots=True)
class _Listing:
    """The entries of one folder by folded name, and by folded name without ending."""

    names: dict[str, list[Path]] = field(default_factory=dict)
    stems: dict[str, list[Path]] = field(default_factory=dict)
