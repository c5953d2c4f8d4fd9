"""Tensors and values computed once and kept on disk under the hash of what they depend on."""

from __future__ import annotations

import atexit
import hashlib
import json
import logging
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from personae.core.checksum import checksum
from personae.core.devices import HOST
from personae.core.files import replacing, write_text
from personae.errors import PersonaeError

logger = logging.getLogger(__name__)
T = TypeVar("T")


def default_folder() -> Path:
    """Return the cache folder: $PERSONAE_CACHE, else personae below the user's cache folder."""
    named = os.environ.get("PERSONAE_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "personae"


def keep(write: Callable[[], object]) -> bool:
    """Write something into the cache and say whether that worked.

    A cache only saves time: where it cannot be written, work goes on without, after one note.
    """
    try:
        write()
    except PersonaeError as error:
        reason = re.search(r"cannot be written \((.*?)\);", str(error))
        _mention(default_folder(), reason[1] if reason else str(error))
        return False
    return True


@cache
def spare_folder() -> Path:
    """Return a folder for files that the cache does not take; it goes with the process."""
    folder = tempfile.TemporaryDirectory(prefix="personae-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


@cache
def _mention(folder: Path, reason: str) -> None:
    logger.warning(
        "%s: the cache cannot be written (%s); going on without it, and what it would keep is made "
        "anew each time. Free space, or name another folder with PERSONAE_CACHE",
        folder,
        reason,
    )


class TensorCache:
    """A folder of small safetensors files, each with its key and a checksum."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._unkept: dict[str, dict[str, Tensor]] = {}  # while the folder cannot be written

    def get(self, key: object, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return what is kept under `key`, computing and keeping it the first time.

        Args:
            key: anything whose `repr` says all that the tensors depend on.
            compute: makes the tensors; they are kept as they are.
        """
        digest = hashlib.sha256(repr(key).encode()).hexdigest()
        path = self.folder / digest[:2] / f"{digest}.safetensors"
        found = self._unkept.get(digest) or _entry(path, digest)
        if found is not None:
            return found
        tensors = {name: value.contiguous().to(HOST) for name, value in compute().items()}
        if not keep(partial(_write, path, digest, tensors)):
            self._unkept[digest] = tensors
        return tensors


class ValueCache(Generic[T]):
    """A folder of small JSON files: each a value, what it depends on, and a checksum."""

    def __init__(self, folder: Path, kind: type[T]) -> None:
        """Take the folder and the type of its values, which what is read must have."""
        self.folder, self._reader = folder, TypeAdapter(kind)

    def get(self, about: Mapping[str, Any], compute: Callable[[], T]) -> T:
        """Return the value kept for `about`, computing and keeping it the first time.

        Args:
            about: all that the value depends on, as JSON can hold it.
            compute: makes the value. Where another process kept one meanwhile, that one counts.
        """
        told = json.dumps(about)
        path = self.folder / f"{_sha256(told)[:24]}.json"
        found = self._read(path, told)
        if found is None:
            made = compute()
            found = self._read(path, told)
            if found is None:
                keep(partial(write_text, path, _sealed(told, made)))
                found = made
        return found

    def _read(self, path: Path, told: str) -> T | None:
        """Return the value of a file; None where it is not there, damaged or of something else."""
        try:
            text = path.read_text(encoding="utf-8")
            value = self._reader.validate_python(json.loads(text)["value"], strict=True)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return value if text == _sealed(told, value) else None


def _sealed(told: str, value: object) -> str:
    """Return an entry of a `ValueCache`: the text it must be, to the letter."""
    kept = {"about": json.loads(told), "value": value}
    return json.dumps({**kept, "sha256": _sha256(json.dumps(kept))}, indent=1) + "\n"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _write(path: Path, key: str, tensors: dict[str, Tensor]) -> None:
    with replacing(path) as temporary:
        save_file(tensors, temporary, {"key": key, "sha256": checksum(tensors)})


def _entry(path: Path, key: str) -> dict[str, Tensor] | None:
    """Return an entry; None where it is not there, damaged, of another key or without its own."""
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            if about.get("key") != key:
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError):
        return None
    return tensors if checksum(tensors) == about.get("sha256") else None
