"""Where the tensors of a network lie in its safetensors files, in one or in several."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from personae.core.tensor_header import read_tensor_header
from personae.errors import BaseError
from personae.models.weights.shards import index_file, listed_parts

WEIGHTS = {"diffusers": "diffusion_pytorch_model.safetensors", "transformers": "model.safetensors"}
VARIANT = ".fp16"
FORMATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64}
OLD_LEVEL = "text_model."  # transformers 5 dropped it from the names of CLIP's text encoder
NO_WEIGHT = "position_ids"  # older files hold this range of numbers too


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Where a tensor lies in a file that is read here: a `TensorPlace` in torch's own format."""

    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int

    @property
    def bytes(self) -> int:
        """Return its length in the file."""
        return math.prod(self.shape) * self.dtype.itemsize


def entries_of(path: Path) -> dict[str, TensorEntry]:
    """Return where each tensor of a safetensors file lies.

    Raises:
        KeyError: a number format is not read here.
        HeaderError, OSError: it is no whole safetensors file.
    """
    tensors = read_tensor_header(path).tensors
    return {
        name: TensorEntry(path, FORMATS[place.format], place.shape, place.start)
        for name, place in tensors.items()
    }


def weight_file(folder: Path, name: str | None = None) -> Path | None:
    """Return the one file of weights of a component, None where there are several or none.

    Args:
        folder: of the component.
        name: of the file; None for that of any library. Its fp16 variant stands in for it.
    """
    names = WEIGHTS.values() if name is None else [name]
    for plain in filter(None, names):
        for each in (plain, plain.replace(".safetensors", f"{VARIANT}.safetensors")):
            if (folder / each).is_file():
                return folder / each
    return None


def weight_files(folder: Path, name: str | None = None) -> list[Path]:
    """Return the files that hold the weights of a component: one, several of an index, or none.

    Args:
        folder: of the component.
        name: as for `weight_file`.

    Raises:
        BaseError: the index is damaged, or a file that it lists is not there.
    """
    single = weight_file(folder, name)
    if single is not None:
        return [single]
    names = WEIGHTS.values() if name is None else [name]
    index = next(filter(None, (index_file(folder, each) for each in names)), None)
    try:
        return sorted(set(listed_parts(index).values())) if index else []
    except ValueError as error:
        raise BaseError(f"{index}: {error}") from None


def places_of(network: nn.Module, files: Sequence[Path]) -> dict[str, TensorEntry] | None:
    """Return where each tensor of `network` lies in its files, or None where names differ.

    What is tied to another tensor and in no file of its own lies where that one does.
    """
    try:
        entries = {name: place for path in files for name, place in entries_of(path).items()}
    except (KeyError, ValueError, OSError):
        return None
    names = {name: name if name in entries else OLD_LEVEL + name for name in network.state_dict()}
    for pair in tied_names(network).items():
        for name, other in (pair, pair[::-1]):
            if names[name] not in entries:
                names[name] = names[other]
    extra = set(entries) - set(names.values())
    if not set(names.values()) <= set(entries) or any(NO_WEIGHT not in name for name in extra):
        return None
    places = {name: entries[stored] for name, stored in names.items()}
    shapes = network.state_dict()
    same = all(tuple(shapes[name].shape) == entry.shape for name, entry in places.items())
    return places if same else None


def tied_names(network: nn.Module) -> dict[str, str]:
    """Return {tensor: the tensor of the same network that it is the same as}, as transformers says.

    Where the network's settings tie nothing, the result is empty.
    """
    tied = getattr(network, "all_tied_weights_keys", None)
    return dict(tied) if isinstance(tied, dict) else {}


def spread_values(entry: TensorEntry, count: int) -> Tensor:
    """Return up to about `count` values spread evenly over a tensor of a file.

    The same as `tensor.flatten()[:: max(1, numel // count)]`, without reading the others.
    """
    numel, width = math.prod(entry.shape), entry.dtype.itemsize
    step = max(1, numel // count)
    places = range(entry.start, entry.start + entry.bytes, step * width)
    with entry.file.open("rb", buffering=0) as file:
        if step == 1:
            content = os.pread(file.fileno(), entry.bytes, entry.start)
        else:
            content = b"".join(os.pread(file.fileno(), width, place) for place in places)
    if len(content) != -(-numel // step) * width:
        raise OSError("the file ends before its last tensor")
    return torch.frombuffer(bytearray(content), dtype=entry.dtype)
