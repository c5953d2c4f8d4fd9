"""Times the ways to compute the 3x3 convolutions of Stable Diffusion 1.5's U-Net on a processor.

    python benchmarks/convolutions.py [batch]

Milliseconds, medians, forward and for the gradient of the input: torch's own convolution, one
whose weight is packed, and a product with the weight as it lies. Several weights are taken in turn,
so that none is in the cache, as in a network. The last line weighs each kernel by how often a U-Net
has it, at 256 px.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor, nn

from personae.models.acceleration import unfolded
from personae.models.acceleration.packs import Packs
from personae.models.acceleration.ways.packed_convolutions import packed, packed_gradient

# (inputs, outputs, side of the map, how many)
KERNELS = (
    (320, 320, 32, 10),
    (640, 320, 32, 2),
    (960, 320, 32, 1),
    (640, 640, 16, 8),
    (1280, 640, 16, 2),
    (1280, 1280, 8, 8),
    (2560, 1280, 8, 2),
    (1280, 1280, 4, 11),
    (2560, 1280, 4, 3),
)
COPIES, ROUNDS = 8, 15


def milliseconds(action: Callable[[int], object]) -> float:
    """Return the median time of an action that is told its round."""
    taken = []
    for turn in range(ROUNDS + COPIES):
        started = time.perf_counter()
        action(turn % COPIES)
        taken.append(1e3 * (time.perf_counter() - started))
    return median(taken[COPIES:])


@torch.no_grad()
def times(inputs: int, outputs: int, side: int, batch: int) -> list[float]:
    """Return the six times of one kernel."""
    x = torch.randn(batch, inputs, side, side).bfloat16()
    modules = [nn.Conv2d(inputs, outputs, 3, padding=1).bfloat16() for _ in range(COPIES)]
    packs = [Packs(module) for module in modules]
    gradient = torch.randn(batch, outputs, side, side).bfloat16()

    def plain(i: int) -> Tensor:
        return torch.nn.grad.conv2d_input(x.shape, modules[i].weight, gradient, padding=1)

    unfolded.MOST_PLACES = unfolded.MOST_PLACES_BACK = 10**9  # products whatever the size
    return [
        milliseconds(lambda i: modules[i](x)),
        milliseconds(lambda i: packed(modules[i], packs[i], x)),
        milliseconds(lambda i: unfolded.convolve(modules[i], x)),
        milliseconds(plain),
        milliseconds(lambda i: packed_gradient(modules[i], packs[i], gradient, x.shape)),
        milliseconds(
            lambda i: unfolded.input_gradient(modules[i], modules[i].weight, gradient, x.shape)
        ),
    ]


def main() -> None:
    """Print a row for each kernel, and their sum."""
    batch = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    print(f"{'':>22}  forward: plain  packed  product   gradient: plain  packed  product")
    sums = [0.0] * 6
    for inputs, outputs, side, count in KERNELS:
        found = times(inputs, outputs, side, batch)
        sums = [total + count * one for total, one in zip(sums, found, strict=True)]
        name = f"{inputs} -> {outputs}, {batch * side * side} places"
        print(f"{name:>26}" + "".join(f"{one:9.2f}" for one in found), flush=True)
    print(f"{'a network':>26}" + "".join(f"{one:9.0f}" for one in sums))


if __name__ == "__main__":
    main()
