"""Tensors computed once and kept on disk under the hash of what they were computed from."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from personae.core.devices import HOST
from personae.core.files import replacing


def default_folder() -> Path:
    """Return the cache folder: $PERSONAE_CACHE, else personae below the user's cache folder."""
    named = os.environ.get("PERSONAE_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "personae"


class TensorCache:
    """A folder of small safetensors files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: object, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return what is kept under `key`, computing and keeping it the first time.

        Args:
            key: anything whose `repr` says all that the tensors depend on.
            compute: makes the tensors; they are kept as they are.
        """
        digest = hashlib.sha256(repr(key).encode()).hexdigest()
        path = self.folder / digest[:2] / f"{digest}.safetensors"
        try:
            return load_file(path)
        except (OSError, SafetensorError):  # not there, or damaged: compute it again
            tensors = {name: value.contiguous().to(HOST) for name, value in compute().items()}
        with replacing(path) as temporary:
            save_file(tensors, temporary)
        return tensors
