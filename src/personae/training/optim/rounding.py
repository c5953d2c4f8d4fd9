"""Writing float32 results into bf16 weights without losing small updates.

bf16 has 8 significant bits: added to a weight of 0.01, an update of 1e-6 rounds away at every
step. Two remedies, both from Zamirai et al. 2020, "Revisiting BFloat16 Training",
arXiv:2010.06192, section 3: stochastic rounding (right on average, no memory) and Kahan summation
(what was cut off is kept in a second bf16 number; together they hold 17 bits).
"""

from __future__ import annotations

import torch
from torch import Tensor

from personae.core.seeds import generator_for

# Elements handled at once: their float32 copies stay in a processor's cache. Half as long as with
# 2^16, where calling the operators takes as much time as they do; 2^19 is slower again.
CHUNK = 2**18
CUT_BITS = 16  # of float32, to become bf16


def noise(count: int, device: torch.device, seed: int, *stream: int | str) -> Tensor:
    """Return int32 numbers in [0, 2^16), min(count, CHUNK) of them, from (seed, stream) alone.

    Tensors longer than a chunk use the same numbers for each chunk: every element is still
    rounded without bias and independently from step to step, which is all that sums need.
    """
    needed = min(count, CHUNK)
    words = torch.empty(-(-needed // 4), dtype=torch.int64)  # four numbers in each
    words.random_(-(2**63), None, generator=generator_for(seed, *stream))
    numbers = words.view(torch.int16)[:needed].to(torch.int32).bitwise_and_(0xFFFF)
    return numbers.to(device)


def stochastically(value: Tensor, noise: Tensor) -> Tensor:
    """Round float32 `value` in place to numbers of bf16, up or down so that it is right on average.

    Args:
        value: float32, finite.
        noise: int32 in [0, 2^16) of the same shape.
    """
    value.view(torch.int32).add_(noise).bitwise_and_(-(1 << CUT_BITS))
    return value


def read(weight: Tensor, compensation: Tensor | None) -> Tensor:
    """Return the float32 value that `weight` stands for."""
    value = weight.float()
    return value if compensation is None else value + compensation


def write(weight: Tensor, value: Tensor, noise: Tensor | None, compensation: Tensor | None) -> None:
    """Write float32 `value` into `weight`.

    Args:
        weight: written in place.
        value: float32, same shape; used up.
        noise: rounds stochastically, where given.
        compensation: takes what was cut off (Kahan), where given.
    """
    if noise is not None:
        weight.copy_(stochastically(value, noise))
        return
    weight.copy_(value)
    if compensation is not None:
        compensation.copy_(value.sub_(weight))
