"""LoRA files joined, cut down, or taken out of what other techniques learnt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from personae.artifact import Artifact, CharacterRecord
from personae.errors import ArtifactError, UnsupportedError, UsageError
from personae.families.base import Family
from personae.hooks import layers_matching
from personae.low_rank import (
    Cut,
    Update,
    cut_delta,
    cut_update,
    kept_share,
    lora_artifact,
    updates_of,
)
from personae.registry import lookup
from personae.techniques.base import Technique

Method = Literal["linear", "svd", "ties", "dare"]
DELTAS = "dreambooth.deltas."


def merge(
    parts: Sequence[tuple[Artifact, float]],
    method: Method = "linear",
    *,
    rank: int | None = None,
    density: float = 0.5,
    seed: int = 0,
) -> Artifact:
    """Return one LoRA that does what several do together.

    Args:
        parts: LoRA artifacts for one base, with strengths.
        method: linear adds them exactly, ranks side by side; svd adds them and keeps the largest
            singular values; ties keeps the largest values of each and settles signs by vote
            (arXiv:2306.01708); dare drops values at random and scales up the rest
            (arXiv:2311.03099).
        rank: most ranks of the result for svd, ties and dare; default: the largest of the parts.
        density: share of values that ties and dare keep, between 0 and 1.
        seed: of the values dare drops.

    Raises:
        UsageError: fewer than two parts, an unknown method, or a number out of its range.
        ArtifactError: a part is no LoRA, or the parts are for unlike bases.
    """
    _check_merge(parts, method, rank, density)
    first = parts[0][0]
    all_updates = [(updates_of(artifact), strength) for artifact, strength in parts]
    layers = sorted({layer for updates, _ in all_updates for layer in updates})
    most = rank or max(u.rank for updates, _ in all_updates for u in updates.values())
    cuts: dict[str, Cut] = {}
    merged: dict[str, Update] = {}
    for i, layer in enumerate(layers):
        mine = [(updates[layer], s) for updates, s in all_updates if layer in updates]
        if method == "linear":
            merged[layer] = _side_by_side(mine)
            continue
        if method == "svd":
            cuts[layer] = cut_update(_side_by_side(mine), most)
        else:
            delta = _settled(mine, method, density, seed + i)
            cuts[layer] = cut_delta(delta, most)
        merged[layer] = cuts[layer].update
    names = " + ".join(f"{a.card.character.name} x {s:g}" for a, s in parts)
    return lora_artifact(
        _stored(merged),
        first.card.base,
        character=_together([artifact for artifact, _ in parts]),
        notes={"merged from": f"{names} ({method})", **_kept(cuts)},
    )


def resize(artifact: Artifact, *, rank: int | None = None, share: float = 1.0) -> Artifact:
    """Return the LoRA with fewer ranks, the best of that size for every layer.

    Args:
        artifact: a LoRA.
        rank: most ranks of a layer; default: as many as it has.
        share: of the squared singular values to keep, in (0, 1]; a layer gets the fewest ranks
            that keep it.

    Raises:
        UsageError: a number is out of its range.
        ArtifactError: it is no LoRA.
    """
    updates = updates_of(artifact)
    _check_limits(rank, share)
    most = rank or max(update.rank for update in updates.values())
    cuts = {layer: cut_update(update, most, share) for layer, update in updates.items()}
    return lora_artifact(
        _stored({layer: cut.update for layer, cut in cuts.items()}),
        artifact.card.base,
        character=artifact.card.character,
        notes=artifact.card.notes | _kept(cuts),
    )


def extract(artifact: Artifact, base: Family, *, rank: int = 32, share: float = 1.0) -> Artifact:
    """Return a LoRA that does what a DreamBooth or a linear hypernetwork does, as far as it can.

    Args:
        artifact: what to extract from.
        base: what it was trained on.
        rank: most ranks of a layer.
        share: of the squared singular values to keep, in (0, 1].

    Raises:
        UsageError: a number is out of its range.
        UnsupportedError: what was learnt is no change of weights.
        ArtifactError: the base is another one, or nothing was learnt.
    """
    _check_limits(rank, share)
    if artifact.card.base.fingerprint != base.fingerprint:
        raise ArtifactError(
            f"the artifact was made for base '{artifact.card.base.source}'; the base given is "
            f"'{base.source}'; give the one it was made for"
        )
    notes = dict(artifact.card.notes) | {"extracted from": f"a {artifact.technique}"}
    match artifact.technique:
        case "dreambooth":
            deltas = _layer_deltas(artifact, base)
            changed = (name.removesuffix(".weight") for name in _changed(artifact))
            lost = [name for name in changed if name not in deltas]
            if lost:
                notes["left out"] = f"changes of {len(lost)} norms, biases and embeddings"
        case "hypernetwork":
            deltas = _hypernetwork_deltas(artifact, base)
        case other:
            raise UnsupportedError(
                f"a {other} is no change of weights, so no LoRA can be extracted from it; "
                "dreambooth and linear hypernetworks are"
            )
    if not deltas:
        raise ArtifactError("no linear or convolution layer was changed; nothing to extract")
    cuts = {layer: cut_delta(delta, rank, share) for layer, delta in deltas.items()}
    return lora_artifact(
        _stored({layer: cut.update for layer, cut in cuts.items()}),
        artifact.card.base,
        character=artifact.card.character,
        notes=notes | _kept(cuts),
    )


def _check_merge(
    parts: Sequence[tuple[Artifact, float]], method: str, rank: int | None, density: float
) -> None:
    if len(parts) < 2:
        raise UsageError(f"merging needs two artifacts or more; {len(parts)} given")
    if method not in get_args(Method):
        raise UsageError(f"method is '{method}'; it must be one of {', '.join(get_args(Method))}")
    if not 0 < density < 1:
        raise UsageError(f"density is {density}; it must lie between 0 and 1")
    _check_limits(rank, 1.0)
    bases = {artifact.card.base.fingerprint: artifact.card.base for artifact, _ in parts}
    if len(bases) > 1:
        names = ", ".join(f"'{b.source}' ({b.fingerprint})" for b in bases.values())
        raise ArtifactError(f"the artifacts are for unlike bases {names}; merge those of one base")


def _check_limits(rank: int | None, share: float) -> None:
    if rank is not None and rank < 1:
        raise UsageError(f"rank is {rank}; it must be at least 1")
    if not 0 < share <= 1:
        raise UsageError(f"share is {share}; it must be in (0, 1]")


def _side_by_side(parts: Sequence[tuple[Update, float]]) -> Update:
    down = torch.cat([update.down.float() for update, _ in parts])
    up = torch.cat([update.up.float() * (update.scale * s) for update, s in parts], dim=1)
    return Update(down, up)


def _settled(
    parts: Sequence[tuple[Update, float]], method: Method, density: float, seed: int
) -> Tensor:
    """Return the merged change of one layer by peft's own rules."""
    from peft.utils.merge_utils import dare_linear, ties

    deltas = [update.delta() for update, _ in parts]
    strengths = torch.tensor([strength for _, strength in parts])
    if method == "ties":
        return ties(deltas, strengths, density)
    with torch.random.fork_rng(devices=[]):  # peft draws from torch's own generator
        torch.default_generator.manual_seed(seed)
        return dare_linear(deltas, strengths, density)


def _stored(updates: Mapping[str, Update]) -> dict[str, Update]:
    """Return the updates in the format LoRA files are kept in."""
    dtype = lookup("techniques", Technique, "lora").stored_dtype
    return {
        layer: Update(update.down.to(dtype), update.up.to(dtype), update.scale)
        for layer, update in updates.items()
    }


def _kept(cuts: Mapping[str, Cut]) -> dict[str, str]:
    return {"kept energy": f"{kept_share(cuts):.6f}"} if cuts else {}


def _together(artifacts: Iterable[Artifact]) -> CharacterRecord:
    characters = list(dict.fromkeys(artifact.card.character for artifact in artifacts))
    return CharacterRecord(
        name="+".join(dict.fromkeys(character.name for character in characters)),
        class_noun=characters[0].class_noun,
        phrase=" and ".join(dict.fromkeys(character.phrase for character in characters)),
    )


def _changed(artifact: Artifact) -> list[str]:
    return [
        name.removeprefix(DELTAS)
        for name, value in artifact.tensors.items()
        if name.startswith(DELTAS) and value.any()
    ]


def _layer_deltas(artifact: Artifact, base: Family) -> dict[str, Tensor]:
    layers = {
        f"{network}.{name}"
        for network, module in base.networks.items()
        for name in layers_matching(module, "")
    }
    return {
        name.removesuffix(".weight"): artifact.tensors[DELTAS + name]
        for name in _changed(artifact)
        if name.endswith(".weight") and name.removesuffix(".weight") in layers
    }


def _hypernetwork_deltas(artifact: Artifact, base: Family) -> dict[str, Tensor]:
    """Return W H for each key and value layer; k = W (c + H c) makes that the change of W."""
    (technique,) = artifact.build(base)
    deltas: dict[str, Tensor] = {}
    products: dict[str, Tensor] = {}
    for name, network in technique.networks.items():
        products[name] = _product(network)
    names = {id(module): name for name, module in base.denoiser.named_modules()}
    for part, layer in technique.layers:
        product = products[f"{layer.in_features}/{part}"]
        if product.any():
            deltas[f"denoiser.{names[id(layer)]}"] = layer.weight.float() @ product
    return deltas


def _product(network: nn.Sequential) -> Tensor:
    """Return the one matrix a linear network is.

    Raises:
        UnsupportedError: it is not linear, or adds a constant, which no LoRA can.
    """
    product: Tensor | None = None
    for layer in network:
        if isinstance(layer, nn.Dropout):
            continue
        if not isinstance(layer, nn.Linear) or layer.bias.any():
            raise UnsupportedError(
                "only hypernetworks without activation, layer norm and biases are linear; this one "
                f"has {'biases' if isinstance(layer, nn.Linear) else type(layer).__name__}"
            )
        product = layer.weight if product is None else layer.weight @ product
    return product.detach().float()
