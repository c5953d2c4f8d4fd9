"""The learning monitor: says in words, early, when a run is not learning or is breaking.

It looks at a few training pictures under frozen noise and compares what is being trained with the
untouched base: the gap in loss, and how much the output changed at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import torch

from personae.models.family import Family
from personae.techniques.modes import settled, untouched
from personae.techniques.technique import Technique
from personae.training.batches import Batch, TextSource
from personae.training.events import Verdict
from personae.training.loss import Noised, denoising_loss, predict, row_losses
from personae.training.optim.optimizers import OWN_RATES
from personae.training.settings import Schedule

LOOKS = (10, 25, 50)
TIMES = 4
# Below these a run shows no effect; above, it does harm. A healthy run changes the output by
# several per cent and lowers the frozen loss by a per cent or more within 50 steps.
STILL = 1e-3
HARM = 0.25


class FrozenProbe:
    """A batch under fixed noise at fixed times, from little noise to much."""

    def __init__(self, base: Family, batch: Batch, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        times = base.path.spread(TIMES)
        rows = torch.arange(len(times)) % len(batch.latents)
        self.base = base
        chosen = replace(
            batch,
            latents=batch.latents[rows],
            mask=None if batch.mask is None else batch.mask[rows],
            weights=torch.ones(len(rows)),
            captions=[batch.captions[i] for i in rows],
            class_captions=[batch.class_captions[i] for i in rows],
        )
        noise = torch.randn(chosen.latents.shape, generator=generator)
        self.noised = Noised(chosen, noise, times)

    @torch.no_grad()
    def loss(self, texts: TextSource) -> float:
        """Return the mean unweighted loss now."""
        text = texts(self.noised.batch.captions)
        return denoising_loss(self.base, self.noised, text, None).mean().item()

    @torch.no_grad()
    def look(self, texts: TextSource) -> tuple[float, torch.Tensor]:
        """Return the mean unweighted loss and the prediction now."""
        output = predict(self.base, self.noised, texts(self.noised.batch.captions))
        return row_losses(self.base, self.noised, output, None).mean().item(), output


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

    def look(self, step: int, schedule: Schedule) -> Verdict | None:
        """Return a verdict after `step`, or None when it is not time for one."""
        if step not in LOOKS:
            return None
        base_loss, base_output = self._base
        with settled(self.techniques):
            loss, output = self.probe.look(self.texts)
        gap = (base_loss - loss) / max(base_loss, 1e-12)
        change = ((output - base_output).norm() / base_output.norm()).item()
        level, message = self._words(gap, change, schedule, step)
        return Verdict(step, level, message, gap, change)

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
