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
    most = rank or max(u.rank for updates, _ in all_updates for u in updates.values())
    cuts: dict[str, Cut] = {}
    merged: dict[str, LowRankUpdate] = {}
    for i, layer in enumerate(layers):
        mine = [(updates[layer], s) for updates, s in all_updates if layer in updates]
        if method == "linear":
            merged[layer] = _concatenated(mine)
            continue
        if method == "svd":
            cuts[layer] = cut_update(_concatenated(mine), most)
        else:
            delta = _settled(mine, method, density, seed + i)
            cuts[layer] = cut_delta(delta, most)
        merged[layer] = cuts[layer].update
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


def _settled(
    parts: Sequence[tuple[LowRankUpdate, float]], method: Method, density: float, seed: int
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


def _together(artifacts: Iterable[Artifact]) -> CharacterRecord:
    characters = list(dict.fromkeys(artifact.card.character for artifact in artifacts))
    return CharacterRecord(
        name="+".join(dict.fromkeys(character.name for character in characters)),
        class_noun=characters[0].class_noun,
        phrase=" and ".join(dict.fromkeys(character.phrase for character in characters)),
    )
