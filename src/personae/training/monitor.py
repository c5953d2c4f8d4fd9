"""The learning monitor: says in words, early, when a run is not learning or is breaking.

It looks at a few training pictures under frozen noise and compares what is being trained with the
untouched base: the gap in loss, and how much the output changed at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch

from personae.models.family import Family
from personae.techniques.modes import settled, untouched
from personae.techniques.technique import Technique
from personae.training.events import MonitorNote
from personae.training.optim.optimizers import OWN_RATES
from personae.training.probe import FrozenProbe
from personae.training.schedule import Schedule
from personae.training.texts import TextSource

LOOKS = (10, 25, 50)
# Below these a run shows no effect; above, it does harm. A healthy run changes the output by
# several per cent and lowers the frozen loss by a per cent or more within 50 steps.
STILL = 1e-3
HARM = 0.25


class Monitor:
    """Compares a run with the untouched base at steps 10, 25 and 50."""

    def __init__(
        self, probe: FrozenProbe, techniques: Sequence[Technique], texts: TextSource
    ) -> None:
        self.probe, self.techniques, self.texts = probe, techniques, texts

    @cached_property
    def _base(self) -> tuple[float, torch.Tensor]:
        """What the untouched base does, looked at when it is first needed: not before step 1."""
        with settled(self.techniques), untouched(self.techniques):
            return self.probe.look(self.texts)

    def look(self, step: int, schedule: Schedule) -> MonitorNote | None:
        """Return a verdict after `step`, or None when it is not time for one."""
        if step not in LOOKS:
            return None
        base_loss, base_output = self._base
        with settled(self.techniques):
            loss, output = self.probe.look(self.texts)
        gap = (base_loss - loss) / max(base_loss, 1e-12)
        change = ((output - base_output).norm() / base_output.norm()).item()
        level, message = self._words(gap, change, schedule, step)
        return MonitorNote(step, level, message, gap, change)

    def _words(self, gap: float, change: float, schedule: Schedule, step: int) -> tuple[str, str]:
        rate = schedule.learning_rate
        usual = usual_rate(self.probe.base, self.techniques[0], schedule.optimizer)
        if gap < -HARM:
            lower = other_rate(rate, usual, 1 / 5)
            return "warning", (
                f"breaking: the loss on frozen noise is {-gap:.0%} above the base's; stop and "
                f"use a lower learning rate, such as {lower:.1e} (now {rate:.1e})"
            )
        if change < STILL and step > LOOKS[0]:
            higher = other_rate(rate, usual, 5)
            return "warning", (
                f"not learning: the output changed by only {change:.2%}; use a higher learning "
                f"rate, such as {higher:.1e} (now {rate:.1e})"
            )
        if change < STILL:
            return "note", f"warming up: the output changed by only {change:.2%} so far"
        start = "learning" if gap >= 0 else "moving, not yet for the better"
        direction = "below" if gap >= 0 else "above"
        return "note", (
            f"{start}: the output changed by {change:.1%}, the loss on frozen noise is "
            f"{abs(gap):.1%} {direction} the base's"
        )


def usual_rate(base: Family, technique: Technique, optimizer: str) -> float:
    """Return the learning rate that is advised for `technique` on `base`."""
    advised = base.recommended(technique.name, technique.recommended).learning_rate
    return OWN_RATES.get(optimizer, advised)


def other_rate(now: float, usual: float, factor: float) -> float:
    """Return the rate to try in the place of `now`, which is far too high or far too low.

    It is `factor` times as high, or the usual one where that is further off in this direction.
    """
    return (max if factor > 1 else min)(now * factor, usual)
