"""The weights of one component of a diffusers folder, in one file or in several."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from personae.errors import ArtifactError
from personae.formats.tensor_file import read_header, read_tensors

LARGEST_INDEX = 16 * 2**20
MOST_SHARDS = 256
_INDICES = ("safetensors.index.json", "safetensors.index.fp16.json")


@dataclass(frozen=True, slots=True)
class ComponentWeights:
    """Where the weights of a component lie.

    Attributes:
        folder: of the component.
        files: {name of a weight: file}.
        shapes: {name of a weight: shape}.
        metadata: free text of the files.
    """

    folder: Path
    files: dict[str, Path]
    shapes: dict[str, tuple[int, ...]]
    metadata: dict[str, str]

    def read(self, name: str) -> Tensor:
        """Return one weight."""
        return read_tensors(self.files[name], [name])[name]


def component_weights(folder: Path, stem: str) -> ComponentWeights:
    """Find the weights in `folder`: `<stem>.safetensors`, its fp16 variant, or shards by an index.

    Raises:
        ArtifactError: there are none, only pickles, or the index and its files disagree.
    """
    for name in (f"{stem}.safetensors", f"{stem}.fp16.safetensors"):
        if (folder / name).is_file():
            return _gathered(folder, [folder / name])
    for ending in _INDICES:
        if (folder / f"{stem}.{ending}").is_file():
            return _sharded(folder, folder / f"{stem}.{ending}")
    raise ArtifactError(
        f"{folder}: has no {stem}.safetensors, whole or in parts; pickles are not read"
    )


def _gathered(folder: Path, paths: list[Path]) -> ComponentWeights:
    files: dict[str, Path] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    metadata: dict[str, str] = {}
    for path in paths:
        header = read_header(path)
        metadata |= header.metadata
        for name, shape in header.shapes.items():
            if name in files:
                raise ArtifactError(f"{path}: holds '{name}', as {files[name].name} does already")
            files[name], shapes[name] = path, shape
    return ComponentWeights(folder, files, shapes, metadata)


def _sharded(folder: Path, index: Path) -> ComponentWeights:
    try:
        if index.stat().st_size > LARGEST_INDEX:
            raise ArtifactError(f"{index}: is too large for an index")
        listed = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        parts = sorted(set(listed.values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ArtifactError(f"{index}: is no index of weights; it is damaged") from None
    if not parts or len(parts) > MOST_SHARDS:
        raise ArtifactError(f"{index}: lists {len(parts)} files; expected 1 to {MOST_SHARDS}")
    for part in parts:
        plain = isinstance(part, str) and Path(part).name == part and part.endswith(".safetensors")
        if not plain:
            raise ArtifactError(f"{index}: lists '{part}'; expected safetensors files beside it")
        if not (folder / part).is_file():
            raise ArtifactError(f"{index}: lists '{part}', which is not there; fetch it")
    found = _gathered(folder, [folder / part for part in parts])
    for name, part in listed.items():
        if found.files.get(name) != folder / part:
            raise ArtifactError(f"{index}: says that {part} holds '{name}', which it does not")
    return found
