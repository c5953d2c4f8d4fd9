"""Times the ways to compute the attentions of Stable Diffusion 1.5's U-Net on a processor.

    python benchmarks/attention.py [batch]

Milliseconds, medians, of both passes in bf16: torch's own, with the table of weights computed
again in pieces, and with the table kept. The ways take turns.
"""

from __future__ import annotations

import sys
import time
from statistics import median

import torch
from torch import Tensor
from torch.nn import functional

from personae.models.acceleration import recomputed

HEADS, ROUNDS = 8, 7
# (places, places they see, width of a head), at 256 and 512 px
SHAPES = (
    (64, 64, 160),
    (256, 256, 80),
    (256, 77, 80),
    (1024, 1024, 40),
    (1024, 77, 40),
    (4096, 4096, 40),
    (4096, 77, 40),
)
MOST_KEPT = 2**26  # numbers of a table that are kept here; 4096 places have twice as many


def own(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend as torch does."""
    return functional.scaled_dot_product_attention(query, key, value)


def again(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend with a table that is computed again."""
    return recomputed.attend(query, key, value, query.shape[-1] ** -0.5)


def kept(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend with a table that is kept."""
    query, key, value = (each.flatten(0, 1) for each in (query, key, value))
    scale = query.shape[-1] ** -0.5
    scores = torch.baddbmm(query.new_empty(1, 1, 1), query, key.mT, beta=0, alpha=scale)
    return (scores.softmax(-1) @ value).unflatten(0, (-1, HEADS))


def main() -> None:
    """Print a row for each shape."""
    batch = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    print(f"{'':>22}     own   again    kept")
    for places, seen, width in SHAPES:
        sizes = (places, seen, seen, places)
        # Heads side by side, as the projections of a network leave them.
        *given, toward = (
            torch.randn(batch, size, HEADS, width).bfloat16().transpose(1, 2) for size in sizes
        )
        given = [each.requires_grad_() for each in given]
        ways = [own, again, kept] if batch * HEADS * places * seen <= MOST_KEPT else [own, again]
        taken: list[list[float]] = [[] for _ in ways]
        for _ in range(ROUNDS + 1):
            for way, times in zip(ways, taken, strict=True):
                started = time.perf_counter()
                torch.autograd.grad(way(*given), given, toward)
                times.append(1e3 * (time.perf_counter() - started))
        found = "".join(f"{median(times[1:]):8.1f}" for times in taken)
        print(f"{places} places that see {seen}".rjust(26) + found, flush=True)


if __name__ == "__main__":
    main()
