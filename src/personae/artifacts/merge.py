"""LoRA files joined and cut down."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from personae.artifacts.artifact import Artifact
from personae.artifacts.card import CharacterRecord
from personae.artifacts.low_rank import (
    Cut,
    LowRankUpdate,
    check_limits,
    cut_delta,
    cut_update,
    kept_note,
    lora_artifact,
    stored,
    updates_of,
)
from personae.errors import ArtifactError, UsageError

Method = Literal["linear", "svd", "ties", "dare"]


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
    of_layer = {
        layer: [(updates[layer], s) for updates, s in all_updates if layer in updates]
        for layer in layers
    }
    cuts: dict[str, Cut] = {}
    if method == "linear":
        merged = {layer: _concatenated(mine) for layer, mine in of_layer.items()}
    else:
        most = rank or max(u.rank for updates, _ in all_updates for u in updates.values())
        for i, (layer, mine) in enumerate(of_layer.items()):
            cuts[layer] = _cut(mine, method, most, density, seed + i)
        merged = {layer: cut.update for layer, cut in cuts.items()}
    names = " + ".join(f"{a.card.character.name} x {s:g}" for a, s in parts)
    return lora_artifact(
        stored(merged),
        first.card.base,
        character=_together([artifact for artifact, _ in parts]),
        notes={"merged from": f"{names} ({method})", **kept_note(cuts)},
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
    check_limits(rank, share)
    most = rank or max(update.rank for update in updates.values())
    cuts = {layer: cut_update(update, most, share) for layer, update in updates.items()}
    return lora_artifact(
        stored({layer: cut.update for layer, cut in cuts.items()}),
        artifact.card.base,
        character=artifact.card.character,
        notes=artifact.card.notes | kept_note(cuts),
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
    check_limits(rank, 1.0)
    bases = {artifact.card.base.fingerprint: artifact.card.base for artifact, _ in parts}
    if len(bases) > 1:
        names = ", ".join(f"'{b.source}' ({b.fingerprint})" for b in bases.values())
        raise ArtifactError(f"the artifacts are for unlike bases {names}; merge those of one base")


def _concatenated(parts: Sequence[tuple[LowRankUpdate, float]]) -> LowRankUpdate:
    down = torch.cat([update.down.float() for update, _ in parts])
    up = torch.cat([update.up.float() * (update.scale * s) for update, s in parts], dim=1)
    return LowRankUpdate(down, up)


def _cut(
    parts: Sequence[tuple[LowRankUpdate, float]],
    method: Method,
    most: int,
    density: float,
    seed: int,
) -> Cut:
    """Return the merged change of one layer, cut to at most `most` ranks."""
    if method == "svd":
        return cut_update(_concatenated(parts), most)
    deltas = [update.delta() for update, _ in parts]
    strengths = [strength for _, strength in parts]
    if method == "ties":
        return cut_delta(ties(deltas, strengths, density), most)
    kept = dare(deltas, strengths, density, torch.Generator().manual_seed(seed))
    return cut_delta(kept, most)


def ties(deltas: Sequence[Tensor], strengths: Sequence[float], density: float) -> Tensor:
    """Return changes of one weight merged by trimming, electing signs and a disjoint mean.

    Source: Yadav et al. 2023, arXiv:2306.01708, algorithm 1. Each change d_t keeps its largest
    values; a sign g = sgn(sum_t d_t) is elected for each value; the result is the mean of those
    that have it, (1 / |A|) sum_(t in A) s_t d_t with A = {t: sgn(d_t) = g}. The strengths s_t
    count in the mean and not in the election, as in peft; the paper has one factor at the end.

    Args:
        deltas: of one shape.
        strengths: of each.
        density: share of the values of each that are kept, in (0, 1).
    """
    trimmed = torch.stack([_trimmed(delta, density) for delta in deltas])
    elected = torch.where(trimmed.sum(0) >= 0, 1.0, -1.0)
    agreeing = trimmed.sign() == elected
    return (_times(trimmed, strengths) * agreeing).sum(0) / agreeing.sum(0).clamp(min=1)


def dare(
    deltas: Sequence[Tensor], strengths: Sequence[float], density: float, draws: torch.Generator
) -> Tensor:
    """Return the sum of changes of one weight of which values were dropped at random.

    Source: Yu et al. 2023, arXiv:2311.03099: d' = (1 - m) d / (1 - p) with m ~ Bernoulli(p), so
    that d' is d on average. Here density = 1 - p.

    Args:
        deltas: of one shape.
        strengths: factor of each.
        density: share of the values of each that are kept, in (0, 1).
        draws: which.
    """
    kept = [
        delta * torch.bernoulli(torch.full_like(delta, density), generator=draws) / density
        for delta in deltas
    ]
    return _times(torch.stack(kept), strengths).sum(0)


def _trimmed(delta: Tensor, density: float) -> Tensor:
    """Return `delta` with all but the largest `density` of its values set to zero."""
    largest = delta.abs().flatten().topk(int(density * delta.numel())).indices
    mask = torch.zeros_like(delta).flatten()
    mask[largest] = 1
    return delta * mask.reshape(delta.shape)


def _times(stacked: Tensor, factors: Sequence[float]) -> Tensor:
    return stacked * torch.tensor(factors).reshape(-1, *(1 for _ in stacked.shape[1:]))


def _together(artifacts: Iterable[Artifact]) -> CharacterRecord:
    characters = list(dict.fromkeys(artifact.card.character for artifact in artifacts))
    return CharacterRecord(
        name="+".join(dict.fromkeys(character.name for character in characters)),
        class_noun=characters[0].class_noun,
        phrase=" and ".join(dict.fromkeys(character.phrase for character in characters)),
    )
