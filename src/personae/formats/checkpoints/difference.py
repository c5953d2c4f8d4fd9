"""From a fine-tuned checkpoint to what was learnt: its weights less those of the base."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from personae.artifacts.artifact import Artifact, assemble, checked_on, record_of
from personae.artifacts.card import TechniqueRecord
from personae.core.devices import HOST
from personae.core.registry import lookup
from personae.errors import ArtifactError
from personae.formats.metadata import character_in
from personae.models.family import Family
from personae.techniques.technique import Technique

TECHNIQUE = "dreambooth"

Fetch = Callable[[str, tuple[int, ...]], Tensor | None]


@torch.no_grad()
def difference(
    fetch: Fetch,
    base: Family,
    *,
    path: Path,
    title: str,
    metadata: Mapping[str, str],
    left_out: Iterable[str] = (),
) -> Artifact:
    """Return the difference of a checkpoint from `base` as a DreamBooth artifact.

    A weight counts as unchanged where it equals the base's rounded to the file's number format.

    Args:
        fetch: (`<network>.<weight>`, shape) -> value in the checkpoint, None if it has none.
        base: what it was fine-tuned from.
        path: for messages and the character's name.
        title: of the format, for the notes.
        metadata: what the checkpoint says of the character.
        left_out: parts of the checkpoint that no technique holds, for the notes.

    Raises:
        ArtifactError: a weight of the denoiser is missing, or nothing differs from the base.
    """
    deltas, missing = _deltas(fetch, base, lookup(Technique, TECHNIQUE).stored_dtype)
    if "denoiser" in missing:
        raise ArtifactError(
            f"{path}: has no weight for '{missing['denoiser'][0]}' of base '{base.source}'; the "
            "checkpoint is of another kind"
        )
    changed = {name for name, each in deltas.items() if any(d.any() for d in each.values())}
    if not changed:
        raise ArtifactError(f"{path}: is the base '{base.source}' itself; nothing was learnt")
    text = bool(changed - {"denoiser"})
    notes = {
        "imported from": f"{path.name} ({title}), less base '{base.source}'",
        "taken from the base": ", ".join(sorted(missing)),
        "left out": ", ".join(left_out),
    }
    artifact = assemble(
        [TechniqueRecord(name=TECHNIQUE, config={"text_encoder": text})],
        _named(deltas, base.networks if text else ["denoiser"]),
        record_of(base),
        character=character_in(metadata, path),
        notes={name: note for name, note in notes.items() if note},
    )
    return checked_on(artifact, base, path)


def _named(
    deltas: Mapping[str, Mapping[str, Tensor]], networks: Iterable[str]
) -> dict[str, Tensor]:
    """Return the changes of some networks under their names in an artifact."""
    kind = lookup(Technique, TECHNIQUE)
    return {
        kind.tensor_name(network, name): delta
        for network in networks
        for name, delta in deltas[network].items()
    }


def _deltas(
    fetch: Fetch, base: Family, dtype: torch.dtype
) -> tuple[dict[str, dict[str, Tensor]], dict[str, list[str]]]:
    """Return {network: {weight: its change}}, and by network the weights the checkpoint lacks."""
    deltas: dict[str, dict[str, Tensor]] = {}
    missing: dict[str, list[str]] = {}
    for network, module in base.networks.items():
        for name, weight in module.named_parameters():
            tuned = fetch(f"{network}.{name}", tuple(weight.shape))
            if tuned is None:
                missing.setdefault(network, []).append(name)
                tuned = weight.to(HOST)
            own = weight.detach().to(HOST)
            same = torch.equal(tuned, own.to(tuned.dtype))
            delta = torch.zeros(own.shape) if same else tuned.float() - own.float()
            deltas.setdefault(network, {})[name] = delta.to(dtype)
    return deltas, missing
