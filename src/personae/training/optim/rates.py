"""The rate of a step: warm-up and decay."""

from __future__ import annotations

import math

import torch


def rate_factor(step: int, steps: int, warmup: float, shape: str) -> float:
    """Return the factor of the peak learning rate at `step` (0 .. steps-1).

    Rises linearly over `warmup * steps`, then stays, or falls to 0 as half a cosine or a line.
    """
    rising = round(warmup * steps)
    if step < rising:
        return (step + 1) / rising
    progress = (step - rising) / max(1, steps - rising)
    match shape:
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * progress))
        case "linear":
            return 1 - progress
        case _:
            return 1.0


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set each group's rate to `factor` times its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
