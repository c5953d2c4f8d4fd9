"""Safetensors files of other tools: read with suspicion, written with their hashes.

Knows nothing of what the tensors mean.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from personae.core.files import replacing
from personae.core.tensor_header import HeaderError, TensorHeader, read_tensor_header
from personae.errors import ArtifactError
from personae.formats.safe_pickle import tensors_in

HASH_TO_COME = "0" * 64
"""Stands in metadata for the sha256 of the tensor bytes until they are written."""

MOST_ZEROS = 2**28
"""Numbers that are made up where a file lacks them; SD 1.5 needs 17 million at most."""


def read_header(path: Path) -> TensorHeader:
    """Return names, shapes and metadata; no tensor is read.

    Raises:
        ArtifactError: missing, truncated, or not safetensors.
    """
    try:
        return read_tensor_header(path)
    except (HeaderError, OSError) as error:
        raise ArtifactError(
            f"{path}: is no whole safetensors file ({error}); copy or download it again"
        ) from None


def header_or_none(path: Path) -> TensorHeader | None:
    """Return the header, or None where `path` is no safetensors file."""
    if path.suffix != ".safetensors" or not path.is_file():
        return None
    try:
        return read_header(path)
    except ArtifactError:
        return None


@dataclass(frozen=True)
class TensorFile:
    """A file of named tensors, safetensors or a pickle of tensors alone.

    Attributes:
        shapes: {name: shape}.
        metadata: free text by key; nothing for a pickle.
    """

    path: Path
    shapes: dict[str, tuple[int, ...]]
    metadata: dict[str, str]

    @classmethod
    def open(cls, path: Path) -> Self | None:
        """Return what the file holds, None where it is neither; never raises."""
        header = header_or_none(path)
        if header is not None:
            return cls(path, header.shapes, header.metadata)
        tensors = tensors_in(path)
        if tensors is None:
            return None
        return cls(path, {name: tuple(value.shape) for name, value in tensors.items()}, {})

    @classmethod
    def opened(cls, path: Path) -> Self:
        """Return what the file holds.

        Raises:
            ArtifactError: it is no file of tensors.
        """
        file = cls.open(path)
        if file is None:
            raise ArtifactError(f"{path}: is no file of tensors; copy or download it again")
        return file

    def tensors(self, names: list[str] | None = None) -> dict[str, Tensor]:
        """Return {name: value}, as `read_tensors` does.

        Raises:
            ArtifactError: truncated, a value is not finite, or a format is not floating.
        """
        pickled = tensors_in(self.path)
        if pickled is None:
            return read_tensors(self.path, names)
        wanted = list(pickled) if names is None else names
        return {name: checked(self.path, name, pickled[name].detach()) for name in wanted}


def read_tensors(path: Path, names: list[str] | None = None) -> dict[str, Tensor]:
    """Return {name: value}; every value is finite and of a floating format of 16 bits or more.

    Args:
        path: the file.
        names: which to read; all when left out.

    Raises:
        ArtifactError: truncated, a value is not finite, or a format is not floating.
    """
    try:
        with safe_open(path, "pt") as file:
            wanted = list(file.keys()) if names is None else names
            tensors = {name: file.get_tensor(name) for name in wanted}
    except (SafetensorError, OSError, ValueError) as error:
        raise ArtifactError(
            f"{path}: is no whole safetensors file ({error}); copy or download it again"
        ) from None
    return {name: checked(path, name, tensor) for name, tensor in tensors.items()}


def checked(path: Path, name: str, tensor: Tensor) -> Tensor:
    """Return `tensor`, 8-bit floats widened to float16.

    Raises:
        ArtifactError: its format is not floating, or a value is not finite.
    """
    if tensor.numel() == 1 and not (tensor.is_floating_point() or tensor.is_complex()):
        tensor = tensor.float()  # an alpha, which tools write in any format
    if not tensor.is_floating_point():
        raise ArtifactError(f"{path}: tensor '{name}' is {tensor.dtype}; expected floating values")
    if tensor.element_size() == 1:
        tensor = tensor.to(torch.float16)
    if tensor.element_size() > 4:
        tensor = tensor.to(torch.float32)
    if not torch.isfinite(tensor).all():
        raise ArtifactError(f"{path}: tensor '{name}' holds values that are not finite")
    return tensor


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Path:
    """Write a file atomically; `HASH_TO_COME` in metadata becomes the sha256 of the tensor bytes.

    The hash covers the bytes after the header, so that it survives later edits of the metadata.
    """
    whole = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        save_file(whole, temporary, dict(metadata))
        if any(HASH_TO_COME in value for value in metadata.values()):
            _fill_in_hash(temporary)
    return path


def data_hash(path: Path) -> str:
    """Return the sha256 of the bytes after the header, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(8 + int.from_bytes(file.read(8), "little"))
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _fill_in_hash(path: Path) -> None:
    digest = data_hash(path)
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length)
        names = json.loads(header)["__metadata__"]
        for key, value in names.items():
            if HASH_TO_COME in value:
                before = f"{json.dumps(key)}:{json.dumps(value)}".encode()
                after = before.replace(HASH_TO_COME.encode(), digest.encode())
                header = header.replace(before, after)
        file.seek(8)
        file.write(header)


def zeros(wanted: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return zeros of the shapes of `wanted`, which may be on shapes alone.

    Raises:
        ArtifactError: they would be more than any real file leaves open.
    """
    numbers = sum(value.numel() for value in wanted.values())
    if numbers > MOST_ZEROS:
        raise ArtifactError(
            f"{path}: what it lacks of its own settings would have "
            f"{numbers:,} numbers; at most {MOST_ZEROS:,} are made up; train it anew"
        )
    return {name: torch.zeros(value.shape, dtype=value.dtype) for name, value in wanted.items()}
