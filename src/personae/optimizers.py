"""Optimisers by name, from the libraries that keep them, and learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from personae.errors import UsageError
from personae.registry import nearest


def adamw(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Return AdamW (arXiv:1711.05101) of torch, fused where the device can."""
    return torch.optim.AdamW(groups, betas=(0.9, 0.99), fused=True)


def adamw8bit(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Return 8-bit AdamW (arXiv:2110.02861) of bitsandbytes."""
    return _imported("bitsandbytes").optim.AdamW8bit(groups, betas=(0.9, 0.99))


def adafactor(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Return Adafactor (arXiv:1804.04235) of transformers with a given learning rate."""
    from transformers.optimization import Adafactor

    return Adafactor(groups, scale_parameter=False, relative_step=False)


def prodigy(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Return Prodigy (arXiv:2306.06101) of prodigyopt; its learning rate is a factor near 1."""
    return _imported("prodigyopt").Prodigy(groups, safeguard_warmup=True)


OPTIMIZERS: dict[str, Callable[[list[dict[str, Any]]], torch.optim.Optimizer]] = {
    maker.__name__: maker for maker in (adamw, adamw8bit, adafactor, prodigy)
}


def make_optimizer(name: str, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Return the optimiser called `name`; each group remembers its peak rate as `peak`.

    Raises:
        UsageError: unknown, or its library is not installed.
    """
    if name not in OPTIMIZERS:
        raise UsageError(
            f"schedule.optimizer is '{name}'; it must be one of {', '.join(OPTIMIZERS)}."
            f"{nearest(name, OPTIMIZERS)}"
        )
    optimizer = OPTIMIZERS[name](groups)
    for group in optimizer.param_groups:
        group["peak"] = group["lr"]
    return optimizer


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


def _imported(library: str) -> Any:
    import importlib

    try:
        return importlib.import_module(library)
    except ImportError:
        raise UsageError(
            f"this optimizer needs {library}, which is not installed; pip install {library}, or "
            "use --optimizer adamw"
        ) from None
