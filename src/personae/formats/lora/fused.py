"""Updates of several layers as one of the matrix that they lie in, and back; both are exact.

The original code of most transformers keeps query, key and value in one matrix, a part below the
other. diffusers' classes have a layer for each.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from personae.artifacts.low_rank import LowRankUpdate


def fuse(updates: Sequence[LowRankUpdate | None], rows: Sequence[int]) -> LowRankUpdate:
    """Return one update of the matrix whose parts `updates` change, scale 1.

    Its rank is the sum of theirs: each part keeps its own ranks, and is zero in all others.

    Args:
        updates: one for each part, in the order of the rows; None = unchanged. At least one is
            there.
        rows: of each part.
    """
    whole = [update and update.folded() for update in updates]
    there = [update for update in whole if update is not None]
    down = torch.cat([update.down for update in there])
    blocks, begin = [], 0
    for update, count in zip(whole, rows, strict=True):
        of = update or there[0]
        block = of.up.new_zeros(count, len(down), *of.up.shape[2:])
        if update is not None:
            block[:, begin : begin + update.rank] = update.up
            begin += update.rank
        blocks.append(block)
    return LowRankUpdate(down, torch.cat(blocks))


def split(update: LowRankUpdate, rows: Sequence[int]) -> list[LowRankUpdate | None]:
    """Return the update of each part of a matrix; None where a part is not changed.

    Ranks that a part does not use are left out of it, so that this undoes `fuse`.
    """
    parts: list[LowRankUpdate | None] = []
    for up in update.up.split(list(rows)):
        used = up.transpose(0, 1).flatten(1).any(1)
        part = LowRankUpdate(update.down[used], up[:, used].contiguous(), update.scale)
        parts.append(part if used.any() else None)
    return parts
