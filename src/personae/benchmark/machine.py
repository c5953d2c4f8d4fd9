"""What the machine can do at most: the rate of a large matrix product and of a usual convolution.

The largest rate of a few shapes is the peak that a step is held against.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from personae.core.devices import synchronize
from personae.core.seeds import generator_for

SIDES = (512, 1024, 2048)  # of square matrices
CHANNELS, PLACES = 320, 32  # the widest maps of a Stable Diffusion 1.x U-Net at 256 pixels
CONVOLVED = (1, 4)  # pictures in a convolved batch
REPEATS = 12


def peak_rates(
    device: torch.device, dtype: torch.dtype, now: Callable[[], float]
) -> dict[str, float]:
    """Return {shape: greatest operations in a second} of products and convolutions.

    Args:
        device, dtype: where, and in which format.
        now: the clock, in seconds.
    """
    rates = {}
    for side in SIDES:
        a, b = _drawn(device, dtype, side, side), _drawn(device, dtype, side, side)
        product = _bind(torch.matmul, a, b)
        rates[f"matmul {side}"] = _rate(2 * side**3, product, device, now)
    kernel = _drawn(device, dtype, CHANNELS, CHANNELS, 3, 3)
    for count in CONVOLVED:
        maps = _drawn(device, dtype, count, CHANNELS, PLACES, PLACES)
        convolve = _bind(functional.conv2d, maps, kernel, padding=1)
        work = 2 * count * PLACES**2 * 9 * CHANNELS**2
        rates[f"conv3x3 {CHANNELS}@{PLACES} x{count}"] = _rate(work, convolve, device, now)
    return rates


def _drawn(device: torch.device, dtype: torch.dtype, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator_for(0, "peak")).to(device, dtype)


def _bind(action: Callable[..., Tensor], *args: Tensor, **options: int) -> Callable[[], Tensor]:
    return lambda: action(*args, **options)


@torch.no_grad()
def _rate(
    work: float, action: Callable[[], Tensor], device: torch.device, now: Callable[[], float]
) -> float:
    action()
    best = math.inf
    for _ in range(REPEATS):
        synchronize(device)
        started = now()
        action()
        synchronize(device)
        best = min(best, now() - started)
    return work / max(best, 1e-9)
