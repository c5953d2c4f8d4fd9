"""Which checkpoint of a run to keep, and when a run has nothing left to gain.

Pure functions over scores: nothing here trains, draws or measures. A difference counts only where
the paired bootstrap interval over the same prompts and seeds leaves 0 out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from personae.errors import TrainingError
from personae.evaluation.statistics import paired_difference

PATIENCE: Final = 2
"""Checkpoints in a row without a gain after which a run stops: one may be a bad draw."""


@dataclass(frozen=True, slots=True, eq=False)
class ScoredCheckpoint:
    """What a checkpoint scored on the held-out suite.

    Attributes:
        step: training step it was saved at.
        likeness, agreement: one value per picture (n,), the same pictures for every checkpoint.
        shots: the prompt each value belongs to; None: each value stands alone.
        drift: mean change to class prompts, in [0, 1], or None if not measured.
        copies: share of pictures that are copies of training pictures, in [0, 1], or None.
        following: how much nearer each picture is to its prompt than to the others, or None; a run
            that ignores prompts has 0 there, and an agreement little below others.
    """

    step: int
    likeness: np.ndarray
    agreement: np.ndarray
    shots: tuple[str, ...] | None = None
    drift: float | None = None
    copies: float | None = None
    following: np.ndarray | None = None

    @property
    def flexibility(self) -> float:
        """Return how well prompts are followed: the mean of `following`, or of `agreement`."""
        return _mean(self.agreement if self.following is None else self.following)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a checkpoint may not exceed.

    Attributes:
        drift: greatest mean drift, (1 - cosine) / 2. In peft's benchmark LoRA comes to 0.26 to
            0.29, the methods that harm the base to 0.46 (huggingface/peft 5d602fdb, DINOv2).
        copies: greatest share of copies; 0.25 is one picture in four.
    """

    drift: float = 0.3
    copies: float = 0.25

    def broken_by(self, checkpoint: ScoredCheckpoint) -> str | None:
        """Return in words which bound `checkpoint` passes, or None."""
        if checkpoint.drift is not None and checkpoint.drift > self.drift:
            return f"drift is {checkpoint.drift:.3f}, above {self.drift:g}"
        if checkpoint.copies is not None and checkpoint.copies > self.copies:
            return (
                f"{checkpoint.copies:.0%} of the pictures copy a training picture, above "
                f"{self.copies:.0%}"
            )
        return None


@dataclass(frozen=True, slots=True)
class Choice:
    """The checkpoints worth keeping, by step; they may be the same one.

    Attributes:
        best: highest likeness within the bounds.
        most_flexible: follows prompts best of those whose likeness is within the noise of `best`.
        last: where training ended.
        reason: why, in one line.
    """

    best: int
    most_flexible: int
    last: int
    reason: str


def choose(scored: Sequence[ScoredCheckpoint], bounds: Bounds = Bounds()) -> Choice:
    """Return the checkpoints to keep.

    If every checkpoint passes a bound, the bounds are set aside and the reason says so.

    Raises:
        TrainingError: there is no checkpoint, or none with a likeness.
    """
    ordered = sorted(scored, key=lambda checkpoint: checkpoint.step)
    measured = [c for c in ordered if not np.isnan(c.likeness).all()]
    if not measured:
        raise TrainingError(
            "no checkpoint has a likeness to choose by; hold pictures out, or use --keep last"
        )
    within = [c for c in measured if bounds.broken_by(c) is None]
    candidates = within or measured
    best = max(candidates, key=lambda c: (_mean(c.likeness), -c.step))
    equals = [c for c in candidates if c is best or not gained(c, best)]
    flexible = max(equals, key=lambda c: (c.flexibility, -c.step))
    return Choice(
        best.step,
        flexible.step,
        ordered[-1].step,
        _reason(best, flexible, measured, within, len(equals)),
    )


def gained(before: ScoredCheckpoint, after: ScoredCheckpoint) -> bool:
    """Say whether the likeness of `after` is above that of `before` by more than the noise."""
    difference = paired_difference(after.likeness, before.likeness, after.shots)
    return not difference.tie and difference.interval.mean > 0


def stop_reason(
    scored: Sequence[ScoredCheckpoint], bounds: Bounds = Bounds(), patience: int = PATIENCE
) -> str | None:
    """Return in words why training should stop after the last of `scored`, or None to go on.

    It stops where the last checkpoint passes a bound, or where none of the last `patience` ones
    gained anything beyond the noise on the best before them.
    """
    ordered = sorted(scored, key=lambda checkpoint: checkpoint.step)
    if not ordered:
        return None
    broken = bounds.broken_by(ordered[-1])
    if broken is not None:
        return f"step {ordered[-1].step}: {broken}"
    earlier, recent = ordered[:-patience], ordered[-patience:]
    if not earlier:
        return None
    top = max(earlier, key=lambda c: _mean(c.likeness))
    if any(gained(top, checkpoint) for checkpoint in recent):
        return None
    return (
        f"step {ordered[-1].step}: likeness has not gained beyond the noise since step {top.step} "
        f"({_mean(top.likeness):.3f})"
    )


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("-inf")


def _reason(
    best: ScoredCheckpoint,
    flexible: ScoredCheckpoint,
    measured: Sequence[ScoredCheckpoint],
    within: Sequence[ScoredCheckpoint],
    equals: int,
) -> str:
    text = f"step {best.step} has the highest likeness ({_mean(best.likeness):.3f})"
    if equals > 1:
        text += (
            f"; {equals} checkpoints are within its noise, of which step {flexible.step} follows "
            f"prompts best ({flexible.flexibility:.3f})"
        )
    if not within:
        text += "; every checkpoint passes the bounds on drift or copies"
    elif len(within) < len(measured):
        text += f"; {len(measured) - len(within)} passed the bounds on drift or copies"
    return text
