"""What a study gives every technique alike: the same number of image presentations, or seconds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self, get_args

from personae.core.registry import lookup
from personae.errors import UsageError
from personae.models.family import Family
from personae.techniques.technique import Technique
from personae.training.schedule import Schedule

BudgetKind = Literal["steps", "presentations", "seconds", "own"]
KINDS: tuple[BudgetKind, ...] = get_args(BudgetKind)


@dataclass(frozen=True, slots=True)
class Budget:
    """How long a technique trains.

    Attributes:
        kind: steps, presentations (steps x pictures in a step), seconds, or own: as long as each
            technique recommends.
        amount: of that kind; None takes the longest recommendation among the techniques compared,
            so that none is cut short.
    """

    kind: BudgetKind
    amount: float | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "steps", "steps=300", "presentations=1200", "seconds=60" or "own".

        Raises:
            UsageError: the text is none of these.
        """
        kind, given, value = text.partition("=")
        try:
            amount = float(value) if given else None
        except ValueError:
            amount = math.nan
        usable = amount is None or (math.isfinite(amount) and amount > 0)
        complete = not (kind == "seconds" and amount is None) and not (kind == "own" and given)
        if kind not in KINDS or not usable or not complete:
            raise UsageError(
                f"budget is '{text}'; expected steps, steps=N, presentations=N, seconds=N or own"
            )
        return cls(kind, amount)

    def steps(
        self, schedule: Schedule, base: Family, pictures: int, techniques: Sequence[str]
    ) -> int | None:
        """Return the optimiser steps of a run, or None where the clock or the technique decides.

        Args:
            schedule: batch size and accumulation of the run.
            base: may bring recommendations of its own.
            pictures: training pictures of the character.
            techniques: all that are compared; combinations are joined by +.
        """
        per_step = schedule.batch_size * schedule.gradient_accumulation
        match self.kind, self.amount:
            case (("seconds" | "own"), _):
                return None
            case "steps", float(amount):
                return math.ceil(amount)
            case _, float(amount):
                return math.ceil(amount / per_step)
            case _:
                return max(
                    _recommended(schedule, base, pictures, name.split("+")[0].strip())
                    for name in techniques
                )


def _recommended(schedule: Schedule, base: Family, pictures: int, technique: str) -> int:
    usual = lookup(Technique, technique).recommended
    free = schedule.model_copy(update={"steps": None})
    resolved = free.resolved(pictures, base.recommended(technique, usual))
    return resolved.total_steps
