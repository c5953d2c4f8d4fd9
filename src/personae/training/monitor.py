"""The learning monitor: says in words, early, when a run is not learning or is breaking.

It looks at a few training pictures under frozen noise and compares what is being trained with the
untouched base: the gap in loss, and how much the output changed at all. It also asks whether a
scene in the prompt changes the output as it does on the base: a run that learns to ignore prompts
lowers its loss like any other, and draws one picture for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Self

import torch

from personae.models.family import Family
from personae.techniques.modes import settled, untouched
from personae.techniques.technique import Technique
from personae.training.events import Level, MonitorNote
from personae.training.optim.names import OWN_RATES
from personae.training.probe import FrozenProbe, PromptProbe, found
from personae.training.schedule import Schedule
from personae.training.texts import TextSource
from personae.training.trainer import Trainer

LOOKS = (10, 25, 50)
PICTURES = 4  # looked at
# Below these a run shows no effect; above, it does harm. A healthy run changes the output by
# several per cent and lowers the frozen loss by a per cent or more within 50 steps.
STILL = 1e-3
HARM = 0.25
# Of eight scenes, healthy runs of all techniques keep 0.8 to 1 and dip to 0.5 on their way. Where
# 0.3 were left, toon_clip found the right scene of eight in 0.13 and 0.19 of the pictures.
FADED = 0.5


class Monitor:
    """Compares a run with the untouched base at steps 10, 25 and 50, half way and at the end.

    Attributes:
        warned: whether it warned when it looked last; whoever resumes a run sets it.
    """

    def __init__(
        self,
        probe: FrozenProbe,
        prompts: PromptProbe,
        techniques: Sequence[Technique],
        texts: TextSource,
        *,
        phrase: str,
        class_noun: str,
    ) -> None:
        """Take the probes.

        Args:
            probe: on a few training pictures.
            prompts: on unlike scenes.
            techniques: attached to the base.
            texts: encodes captions.
            phrase: how prompts name the character.
            class_noun: how they name its class, for the untouched base.
        """
        self.probe, self.prompts, self.techniques, self.texts = probe, prompts, techniques, texts
        self.phrase, self.class_noun = phrase, class_noun
        self.warned = False

    @classmethod
    def of(cls, trainer: Trainer) -> Self:
        """Return the monitor of a run."""
        probe = FrozenProbe(trainer.base, trainer.pictures.first(PICTURES), trainer.config.seed)
        return cls(
            probe,
            trainer.prompts,
            trainer.techniques,
            trainer.texts,
            phrase=trainer.phrase,
            class_noun=trainer.character.class_noun,
        )

    @cached_property
    def _base(self) -> tuple[float, torch.Tensor]:
        """What the untouched base does, looked at when it is first needed: not before step 1."""
        with settled(self.techniques), untouched(self.techniques):
            return self.probe.look(self.texts)

    @cached_property
    def _base_changes(self) -> torch.Tensor:
        """What each scene changes about what the untouched base predicts."""
        with settled(self.techniques), untouched(self.techniques):
            return self.prompts.look(self.texts, self.class_noun)

    def look(self, step: int, schedule: Schedule) -> MonitorNote | None:
        """Return what there is to say after `step`, or None.

        After those of `LOOKS`, half the steps and the last are looked at too, and told of if
        something is wrong, or was when it looked before.
        """
        late = step > LOOKS[-1] and step in (schedule.total_steps // 2, schedule.total_steps)
        if step not in LOOKS and not late:
            return None
        base_loss, base_output = self._base
        with settled(self.techniques):
            loss, output = self.probe.look(self.texts)
            changes = self.prompts.look(self.texts, self.phrase)
        gap = (base_loss - loss) / max(base_loss, 1e-12)
        change = ((output - base_output).norm() / base_output.norm()).item()
        followed = found(changes, self._base_changes)
        level, message = self._words(gap, change, followed, schedule, step)
        before, self.warned = self.warned, level == "warning"
        if late and level == "note" and not before:
            return None
        return MonitorNote(step, level, message, gap, change, followed)

    def _words(
        self, gap: float, change: float, followed: float, schedule: Schedule, step: int
    ) -> tuple[Level, str]:
        rate = schedule.peak_rate
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
        if followed < FADED:
            lower = other_rate(rate, usual, 1 / 5)
            own = [each.keeps_prompts for each in self.techniques if each.keeps_prompts]
            return "warning", (
                f"ignoring prompts: of the scenes asked for, {followed:.0%} change the picture as "
                f"they do on the base; use a lower learning rate, such as {lower:.1e} (now "
                f"{rate:.1e}), {', '.join(['fewer steps', *own])}, or draw at a lower strength"
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
