"""Reads any LoRA file: whichever the spelling of its names, the way is the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from personae.artifacts.artifact import Artifact, checked_on, record_of
from personae.artifacts.low_rank import kept_share, lora_artifact
from personae.core.registry import nearest
from personae.errors import ArtifactError
from personae.formats.lora.names import index_of_names, plain_stem
from personae.formats.lora.parts import LoraReading, refusal, split_key
from personae.formats.metadata import character_in
from personae.models.family import Family


@dataclass(frozen=True, slots=True)
class LoraFile:
    """A LoRA file's content.

    Attributes:
        path: for messages and the character's name.
        tensors: {name: value}.
        metadata: free text by key.
        alphas: {name of a layer in the file: alpha} kept elsewhere than in the tensors.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    alphas: Mapping[str, float]


def read_lora(file: LoraFile, base: Family, format_name: str) -> Artifact:
    """Return the file as a LoRA artifact for `base`.

    Raises:
        ArtifactError: a name is no layer of `base`, or a shape does not fit.
    """
    layers, reading = base.layers(), LoraReading()
    for targets, parts in _grouped(file, base).items():
        try:
            reading.add(targets, parts, [layers[layer].weight.detach() for layer in targets])
        except ArtifactError as error:
            raise ArtifactError(f"{file.path}: {error}") from None
    if not reading.updates:
        raise ArtifactError(f"{file.path}: changes nothing; all its updates are zero")
    notes = {"imported from": f"{file.path.name} ({format_name})"}
    if reading.cuts:
        notes["kept energy"] = f"{kept_share(reading.cuts):.6f}"
    artifact = lora_artifact(
        reading.updates,
        record_of(base),
        character=character_in(file.metadata, file.path),
        notes=notes,
    )
    return checked_on(artifact, base, file.path)


def require_known(names: Iterable[str], path: Path) -> None:
    """Raise ArtifactError if one of the tensors `names` is of a kind that cannot be read."""
    reason = refusal(names)
    if reason:
        raise ArtifactError(f"{path}: {reason}")


def _grouped(file: LoraFile, base: Family) -> dict[tuple[str, ...], dict[str, Tensor]]:
    """Return {layers: {part: tensor}}; several layers where the file has them in one matrix."""
    index = index_of_names(base)
    groups: dict[tuple[str, ...], dict[str, Tensor]] = {}
    require_known(file.tensors, file.path)
    for key, tensor in file.tensors.items():
        found = split_key(key)
        if found is None:
            raise ArtifactError(f"{file.path}: '{key}' is no part of a LoRA")
        stem, part = found
        targets = index.get(plain_stem(stem))
        if targets is None:
            trained_on = file.metadata.get("ss_base_model_version", "unknown")
            raise ArtifactError(
                f"{file.path}: '{stem}' is no layer of base '{base.source}' ({base.name}); the "
                f"file was made for another kind of base (it says: {trained_on})."
                f"{nearest(stem, index) if len(index) < 2000 else ''}"
            )
        group = groups.setdefault(targets, {})
        if part in group:
            raise _twice(targets[0], file.path)
        group[part] = tensor
        if stem in file.alphas:
            group["alpha"] = tensor.new_tensor(file.alphas[stem])
    if not groups:
        raise ArtifactError(f"{file.path}: holds no updates of layers")
    counts = Counter(layer for targets in groups for layer in targets)
    for layer, count in counts.items():
        if count > 1:
            raise _twice(layer, file.path)
    return groups


def _twice(layer: str, path: Path) -> ArtifactError:
    return ArtifactError(f"{path}: holds '{layer}' twice, under two names")
