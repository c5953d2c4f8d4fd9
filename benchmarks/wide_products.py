"""Products in bf16 as torch computes them, widened to float32 here, and in float32 itself.

python benchmarks/wide_products.py       (a processor with AVX2 alone shows what it is for)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from personae.models.acceleration import wide_products

ROUNDS = 3
CASES: dict[str, tuple[Callable[..., Tensor], list[tuple[int, ...]]]] = {
    "256 rows by 1280 x 1280": (functional.linear, [(256, 1280), (1280, 1280)]),
    "convolution, 320 channels, 32 x 32": (
        partial(functional.conv2d, padding=1),
        [(1, 320, 32, 32), (320, 320, 3, 3)],
    ),
    "attention, 8 heads of 1024 places": (
        lambda x: functional.scaled_dot_product_attention(x, x, x),
        [(1, 8, 1024, 40)],
    ),
}


def both_passes(action: Callable[..., Tensor], operands: list[Tensor]) -> None:
    """Compute, and the gradient of the first operand, as a frozen base needs it."""
    torch.autograd.grad(action(*operands).sum(), operands[0])


def milliseconds(action: Callable[..., Tensor], operands: list[Tensor]) -> float:
    """Return the least time of both passes after one to warm up."""
    taken = []
    for _ in range(ROUNDS + 1):
        started = time.perf_counter()
        both_passes(action, operands)
        taken.append(time.perf_counter() - started)
    return 1e3 * min(taken[1:])


def main() -> None:
    """Print a row for each product."""
    print("| both passes, ms | float32 | bf16, torch's own | bf16, widened |\n|---|---|---|---|")
    for title, (action, shapes) in CASES.items():
        whole = [torch.randn(shape) for shape in shapes]
        halves = [each.bfloat16() for each in whole]
        for operands in (whole, halves):
            operands[0].requires_grad_()
        row = [milliseconds(action, whole), milliseconds(action, halves)]
        with wide_products.Widening():
            row.append(milliseconds(action, halves))
        print(f"| {title} | " + " | ".join(f"{each:.1f}" for each in row) + " |", flush=True)


if __name__ == "__main__":
    main()
