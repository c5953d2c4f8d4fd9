"""The algebra of low-rank updates, and LoRA artifacts as {layer: update}.

An update of a weight W (out, in, ...) is a pair `down` (r, in, ...), `up` (out, r, ...); what it
adds is up x down.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from personae.artifacts.artifact import Artifact, assemble
from personae.artifacts.card import BaseRecord, CharacterRecord, TechniqueRecord
from personae.core.registry import lookup
from personae.errors import ArtifactError, UsageError
from personae.techniques.technique import Technique


@dataclass(frozen=True, slots=True)
class LowRankUpdate:
    """A low-rank change of one weight.

    Attributes:
        down: (r, in, kernel...).
        up: (out, r, 1...).
        scale: factor of their product.
    """

    down: Tensor
    up: Tensor
    scale: float = 1.0

    @property
    def rank(self) -> int:
        """Return the inner size r."""
        return self.down.shape[0]

    @property
    def most(self) -> int:
        """Return the largest rank a change of this weight can have."""
        return min(self.up.shape[0], self.down[0].numel())

    def matrices(self) -> tuple[Tensor, Tensor]:
        """Return float32 (out, r) and (r, in x kernel); the scale is in the first."""
        return self.up.flatten(1).float() * self.scale, self.down.flatten(1).float()

    def delta(self) -> Tensor:
        """Return the change of the weight, (out, in, kernel...), float32."""
        up, down = self.matrices()
        return (up @ down).reshape(self.up.shape[0], *self.down.shape[1:])

    def folded(self) -> LowRankUpdate:
        """Return the same change with scale 1; the factor moves into `up`."""
        return LowRankUpdate(self.down, times(self.up, self.scale))

    def trimmed(self) -> LowRankUpdate:
        """Return the same change without the ranks that are zero on both sides."""
        used = self.down.flatten(1).any(1) | self.up.flatten(1).transpose(0, 1).flatten(1).any(1)
        if used.all():
            return self
        if not used.any():
            used[0] = True
        return LowRankUpdate(self.down[used], self.up[:, used], self.scale)

    def padded(self, rank: int) -> LowRankUpdate:
        """Return the same change with zeros up to `rank`."""
        missing = rank - self.rank
        if missing <= 0:
            return self
        down = torch.cat([self.down, self.down.new_zeros(missing, *self.down.shape[1:])])
        up = torch.cat([self.up, self.up.new_zeros(len(self.up), missing, *self.up.shape[2:])], 1)
        return LowRankUpdate(down, up, self.scale)


def times(tensor: Tensor, factor: float) -> Tensor:
    """Return the product in the format of `tensor` if that is exact, else in float32."""
    if factor == 1:
        return tensor
    product = tensor.float() * factor
    same_format = product.to(tensor.dtype)
    return same_format if torch.equal(same_format.float(), product) else product


@dataclass(frozen=True, slots=True)
class Cut:
    """A change cut down to its largest singular values.

    Attributes:
        update: what is left.
        kept: sum of the squared singular values that are left.
        total: sum of all of them.
    """

    update: LowRankUpdate
    kept: float
    total: float


def cut_delta(delta: Tensor, rank: int, share: float = 1.0) -> Cut:
    """Return the best approximation of `delta` by at most `rank` ranks.

    Args:
        delta: change of a weight, (out, in, kernel...).
        rank: most ranks to keep.
        share: stop at the fewest ranks that keep this share of the squared singular values.

    Source: Eckart and Young 1936, doi 10.1007/BF02288367.
    """
    left, values, right = torch.linalg.svd(delta.flatten(1).float(), full_matrices=False)
    return _cut(left, values, right, delta.shape, _Limit(rank, share))


def cut_update(update: LowRankUpdate, rank: int, share: float = 1.0) -> Cut:
    """Return the best approximation of `update` by at most `rank` ranks.

    Works on the small matrices only: U S V of R_up R_down^T, where up = Q_up R_up and
    down^T = Q_down R_down, so that the large product is never made.
    """
    up, down = update.matrices()
    shape = (update.up.shape[0], *update.down.shape[1:])
    if update.rank >= update.most:
        return cut_delta(update.delta(), rank, share)
    q_up, r_up = torch.linalg.qr(up)
    q_down, r_down = torch.linalg.qr(down.T)
    left, values, right = torch.linalg.svd(r_up @ r_down.T, full_matrices=False)
    return _cut(q_up @ left, values, right @ q_down.T, shape, _Limit(rank, share))


@dataclass(frozen=True, slots=True)
class _Limit:
    rank: int
    share: float


def _cut(left: Tensor, values: Tensor, right: Tensor, shape: tuple[int, ...], limit: _Limit) -> Cut:
    energy = values.double().square()
    total = float(energy.sum())
    reached = (energy.cumsum(0) < limit.share * total).sum() + 1
    rank = max(1, min(limit.rank, int(reached), len(values)))
    root = values[:rank].sqrt()  # half on each side keeps both small enough for fp16
    down = (root[:, None] * right[:rank]).reshape(rank, *shape[1:])
    up = (left[:, :rank] * root).reshape(shape[0], rank, *(1 for _ in shape[2:]))
    return Cut(LowRankUpdate(down, up), float(energy[:rank].sum()), total)


def kept_share(cuts: Mapping[str, Cut]) -> float:
    """Return the share of the squared singular values that all cuts together keep, in [0, 1]."""
    total = sum(cut.total for cut in cuts.values())
    return sum(cut.kept for cut in cuts.values()) / total if total else 1.0


def updates_of(artifact: Artifact) -> dict[str, LowRankUpdate]:
    """Return {`<network>.<layer>`: update} of a LoRA artifact, padding taken away.

    Raises:
        ArtifactError: the artifact holds no LoRA, or a half of an update.
    """
    records = [each for each in artifact.card.techniques if each.name == "lora"]
    if not records:
        raise ArtifactError(
            f"'{artifact.card.character.name}' is a {artifact.technique}; expected a lora"
        )
    kind = lookup(Technique, "lora")
    config: Any = kind.Config.parse(records[0].config)
    scale = config.scale
    halves: dict[str, dict[str, Tensor]] = {}
    for name, value in kind.learnt_in(artifact.tensors).items():
        layer, _, side = name.rpartition(".")
        halves.setdefault(layer, {})[side] = value
    for layer, pair in halves.items():
        if set(pair) != {"down", "up"}:
            missing = "up" if "down" in pair else "down"
            raise ArtifactError(f"the update of '{layer}' has no {missing}; the file is damaged")
    return {
        layer: LowRankUpdate(pair["down"], pair["up"], scale).trimmed()
        for layer, pair in halves.items()
    }


def lora_artifact(
    updates: Mapping[str, LowRankUpdate],
    base: BaseRecord,
    *,
    character: CharacterRecord,
    notes: Mapping[str, str] = {},
) -> Artifact:
    """Return a LoRA artifact of exactly these updates.

    Unlike ranks are padded with zeros; unlike scales move into `up`. Where all scales are equal the
    tensors stay as they are, bit for bit.
    """
    fitting = {
        layer: cut_update(update, update.most).update if update.rank > update.most else update
        for layer, update in updates.items()
    }
    if len({update.scale for update in fitting.values()}) > 1:
        fitting = {layer: update.folded() for layer, update in fitting.items()}
    kind, rank = lookup(Technique, "lora"), max(update.rank for update in fitting.values())
    scale = next(iter(fitting.values())).scale
    tensors: dict[str, Tensor] = {}
    for layer, update in fitting.items():
        whole = update.padded(min(rank, update.most))
        tensors[kind.tensor_name(layer, "down")] = whole.down
        tensors[kind.tensor_name(layer, "up")] = whole.up
    config = {"rank": rank, "layers": sorted(fitting)}
    if scale != 1:
        config["alpha"] = scale * rank
    record = TechniqueRecord(name="lora", config=config)
    return assemble([record], tensors, base, character=character, notes=notes)


def stored(updates: Mapping[str, LowRankUpdate]) -> dict[str, LowRankUpdate]:
    """Return the updates in the format LoRA files are kept in."""
    dtype = lookup(Technique, "lora").stored_dtype
    return {
        layer: LowRankUpdate(update.down.to(dtype), update.up.to(dtype), update.scale)
        for layer, update in updates.items()
    }


def kept_note(cuts: Mapping[str, Cut]) -> dict[str, str]:
    """Return the note of a card that says how much the cuts keep; empty without cuts."""
    return {"kept energy": f"{kept_share(cuts):.6f}"} if cuts else {}


def check_limits(rank: int | None, share: float) -> None:
    """Raise UsageError if `rank` is below 1 or `share` not in (0, 1]."""
    if rank is not None and rank < 1:
        raise UsageError(f"rank is {rank}; it must be at least 1")
    if not 0 < share <= 1:
        raise UsageError(f"share is {share}; it must be in (0, 1]")
