"""Optimisers by name, and learning-rate schedules."""

from __future__ import annotations

from typing import Any

import torch

from personae.errors import UsageError
from personae.training.optim.lean import BETAS, Adafactor, AdamW8bit, LeanAdamW, LeanOptimizer
from personae.training.optim.names import check_optimizer


def adamw(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Return AdamW (arXiv:1711.05101) of torch, fused where the device can."""
    return torch.optim.AdamW(groups, betas=BETAS, fused=True)


def prodigy(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Return Prodigy (arXiv:2306.06101) of prodigyopt; its learning rate is a factor near 1.

    Raises:
        UsageError: groups ask for different rates, which it cannot tell apart.
    """
    rates = {group["lr"] for group in groups}
    if len(rates) > 1:
        raise UsageError(
            "schedule.optimizer is 'prodigy', which finds one rate for everything, but parts are "
            f"to learn at {' and '.join(f'{rate:g}' for rate in sorted(rates))} times that; leave "
            "their ratio at 1, or use --optimizer adamw"
        )
    optimizer: torch.optim.Optimizer = _imported("prodigyopt").Prodigy(
        groups, safeguard_warmup=True
    )
    return optimizer


WHOLE = {maker.__name__: maker for maker in (adamw, prodigy)}
LEAN: dict[str, type[LeanOptimizer]] = {
    "adamw": LeanAdamW,
    "adamw8bit": AdamW8bit,
    "adafactor": Adafactor,
}


def make_optimizer(
    name: str, groups: list[dict[str, Any]], *, seed: int = 0, lean: bool = False
) -> torch.optim.Optimizer:
    """Return the optimiser called `name`; each group remembers its peak rate as `peak`.

    Args:
        name: one of OPTIMIZERS.
        groups: parameters with `lr` and `weight_decay`; `rounding` where they are bf16.
        seed: decides stochastic rounding.
        lean: one parameter can be updated on its own (`LeanOptimizer`).

    Raises:
        UsageError: unknown, or its library is not installed, or it cannot do what is asked.
    """
    check_optimizer(name)
    in_low_precision = any(group.get("rounding", "nearest") != "nearest" for group in groups)
    if (lean or in_low_precision) and name not in LEAN:
        wish = "update = in_backward" if lean else "bf16 weights"
        raise UsageError(
            f"schedule.optimizer is '{name}', which cannot do {wish}; use one of "
            f"{', '.join(LEAN)}, or leave {wish} out"
        )
    optimizer: torch.optim.Optimizer
    if lean or in_low_precision or name not in WHOLE:
        optimizer = LEAN[name](groups, seed=seed)
    else:
        optimizer = WHOLE[name](groups)
    for group in optimizer.param_groups:
        group["peak"] = group["lr"]
    return optimizer


def state_bytes(name: str, groups: list[dict[str, Any]]) -> int:
    """Return the bytes of the states that the optimiser called `name` will keep for `groups`."""
    of_one = LEAN.get(name, LeanAdamW).state_bytes  # Prodigy keeps four numbers to Adam's two
    factor = 1 if name in LEAN else 2
    total = 0
    for group in groups:
        total += factor * sum(of_one(parameter) for parameter in group["params"])
        if group.get("rounding") == "kahan":
            total += sum(p.numel() * p.element_size() for p in group["params"])
    return total


def held_on(device: torch.device, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return `groups` with only the parameters on `device`; states lie where these do."""
    return [
        {**group, "params": [p for p in group["params"] if p.device.type == device.type]}
        for group in groups
    ]


def _imported(library: str) -> Any:
    import importlib

    try:
        return importlib.import_module(library)
    except ImportError:
        raise UsageError(
            f"this optimizer needs {library}, which is not installed; pip install {library}, or "
            "use --optimizer adamw"
        ) from None
