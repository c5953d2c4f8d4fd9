"""What a safetensors file says of itself: the one reader of such headers.

Source: https://huggingface.co/docs/safetensors, "Format": 8 bytes with the length of the header,
little-endian; the header, JSON; the tensors, one after the other without gaps. Whoever reads the
tensors themselves can rely on a header from here: each lies inside the file and has the length of
its shape.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from personae.core.files import lfs_pointer

LARGEST_HEADER = 16 * 2**20
"""Bytes. The header of the largest known checkpoints (SDXL, 2,515 tensors) has 0.3 MB."""

MOST_SIZES = 64
"""Of a shape, as in NumPy 2. The product of a hundred thousand would take minutes."""

METADATA = "__metadata__"
PARTS = {"dtype", "shape", "data_offsets"}
# Bits of a number of each format of safetensors 0.8.
BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip


class HeaderError(ValueError):
    """A file is no whole safetensors file; the text is the reason, without the path."""


@dataclass(frozen=True, slots=True)
class TensorPlace:
    """Where a tensor lies in a file.

    Attributes:
        format: of its values, in the words of safetensors: F32, BF16, ...
        shape: its sizes.
        start: of its first byte, from the beginning of the file.
        bytes: its length.
    """

    format: str
    shape: tuple[int, ...]
    start: int
    bytes: int


@dataclass(frozen=True)
class TensorHeader:
    """What a safetensors file says of itself.

    Attributes:
        tensors: {name: where it lies}, in the order of the header.
        metadata: free text by key.
    """

    tensors: dict[str, TensorPlace]
    metadata: dict[str, str]

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return {name: shape}."""
        return {name: place.shape for name, place in self.tensors.items()}

    @property
    def numel(self) -> int:
        """Return how many values all tensors have together."""
        return sum(math.prod(place.shape) for place in self.tensors.values())


def read_tensor_header(path: Path) -> TensorHeader:
    """Return names, formats, shapes, places and metadata; no tensor is read.

    Raises:
        HeaderError: it is no whole safetensors file.
        OSError: it is not there or cannot be read.
    """
    pointer = lfs_pointer(path)
    if pointer:
        raise HeaderError(pointer)
    with path.open("rb") as file:
        size = path.stat().st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise HeaderError("the file ends before its header does")
        if length > LARGEST_HEADER:
            raise HeaderError(f"its header has {length} bytes; at most {LARGEST_HEADER} are read")
        text = file.read(length)
    try:
        described = _parsed(text)
        metadata = described.pop(METADATA, {})
        if not isinstance(metadata, dict) or not all(map(_is_text, metadata.values())):
            raise HeaderError("its metadata are no table of texts")
        # Escapes in JSON can make halves of characters, which cannot be written again.
        "".join((*described, *metadata, *metadata.values())).encode("utf-8")
        tensors = {name: _place(name, one, 8 + length) for name, one in described.items()}
    except (ValueError, RecursionError) as error:
        raise HeaderError(_reason(error)) from None
    _check_places(tensors.values(), 8 + length, size)
    return TensorHeader(tensors, metadata)


def _parsed(text: bytes) -> dict[str, Any]:
    if not text.startswith(b"{"):
        raise HeaderError("its header is no JSON object")
    table: dict[str, Any] = json.loads(text.decode("utf-8"), object_pairs_hook=_table)
    return table


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise HeaderError("its header holds a name twice")
    return table


def _reason(error: Exception) -> str:
    known = isinstance(error, HeaderError)
    return str(error) if known else f"its header cannot be read: {str(error).splitlines()[0]}"


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_size(value: object) -> bool:
    return type(value) is int and value >= 0


def _place(name: str, described: Any, begin: int) -> TensorPlace:
    """Return where a tensor lies whose places are counted from `begin`."""
    about = f"tensor {name[:80]!r}"
    if not isinstance(described, dict) or set(described) != PARTS:
        raise HeaderError(f"{about} is described by other words than {', '.join(sorted(PARTS))}")
    format_, shape, offsets = (described[key] for key in ("dtype", "shape", "data_offsets"))
    if not _is_text(format_) or format_ not in BITS:
        raise HeaderError(f"{about} has the number format {str(format_)[:20]!r}, not known here")
    if not isinstance(shape, list) or len(shape) > MOST_SIZES or not all(map(_is_size, shape)):
        raise HeaderError(f"{about} has a shape that is no list of at most {MOST_SIZES} sizes")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_size, offsets)):
        raise HeaderError(f"{about} has places that are no two numbers")
    start, end = offsets
    if math.prod(shape) * BITS[format_] != (end - start) * 8:
        raise HeaderError(f"{about} has another length than its shape")
    return TensorPlace(format_, tuple(shape), begin + start, end - start)


def _check_places(places: Iterable[TensorPlace], begin: int, size: int) -> None:
    """Raise HeaderError unless the tensors fill the file from `begin` to its end, each once."""
    for place in sorted(places, key=lambda each: (each.start, each.bytes)):
        if place.start != begin:
            raise HeaderError("its tensors overlap, or there is a gap between them")
        begin += place.bytes
    if begin > size:
        raise HeaderError(
            f"the file ends before its last tensor does: {size:,} of {begin:,} bytes are there"
        )
    if begin < size:
        raise HeaderError(f"{size - begin} bytes follow its last tensor")
