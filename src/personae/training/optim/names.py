"""What optimisers are called; without torch, so that another name is refused early."""

from __future__ import annotations

from personae.core.registry import nearest
from personae.errors import UsageError

OPTIMIZERS = ("adamw", "prodigy", "adamw8bit", "adafactor")
"""Every optimiser that `optimizers` makes."""
OWN_RATES = {"prodigy": 1.0}
"""Usual rate of the optimisers that find their own step size, whatever the technique."""


def check_optimizer(name: str) -> None:
    """Refuse the name of no optimiser.

    Raises:
        UsageError: it is none of OPTIMIZERS.
    """
    if name not in OPTIMIZERS:
        raise UsageError(
            f"schedule.optimizer is '{name}'; it must be one of {', '.join(OPTIMIZERS)}."
            f"{nearest(name, OPTIMIZERS)}"
        )
