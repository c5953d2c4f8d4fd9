"""The weights of one component of a diffusers folder, in one file or in several."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from personae.errors import ArtifactError
from personae.formats.tensor_file import read_header, read_tensors
from personae.models.weights.shards import index_file, listed_parts


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
    index = index_file(folder, f"{stem}.safetensors")
    if index is not None:
        return _sharded(folder, index)
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
        listed = listed_parts(index)
    except ValueError as error:
        raise ArtifactError(f"{index}: {error}") from None
    found = _gathered(folder, sorted(set(listed.values())))
    for name, part in listed.items():
        if found.files.get(name) != part:
            raise ArtifactError(f"{index}: says that {part.name} holds '{name}', which it does not")
    return found
