"""How the loss of one run went: a plot, and the same in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from personae.reports.looks import COLOURS, FAINT, INK, PLAIN, svg
from personae.reports.plots import Plot
from personae.training.events import Step, Validation
from personae.training.run_folder import RunFolder

SMOOTHING = 0.9  # share of the running mean kept at each step of the drawn loss
Points = Sequence[tuple[int, float]]


@dataclass(frozen=True, slots=True)
class LossCurve:
    """What a run lost, step by step.

    Attributes:
        losses: (step, loss) of every step.
        validation: (step, loss) on held-out pictures at fixed noise.
        base: the untouched base's loss on them, None if they were not looked at.
    """

    losses: Points
    validation: Points = ()
    base: float | None = None

    @classmethod
    def of(cls, run: RunFolder) -> Self:
        """Return the curve that the events of a run tell; a step done twice counts once."""
        events = run.events()
        losses = {event.step: event.loss for event in events if isinstance(event, Step)}
        checks = {event.step: event for event in events if isinstance(event, Validation)}
        validation = [(step, check.loss) for step, check in sorted(checks.items())]
        base = checks[max(checks)].base if checks else None
        return cls(sorted(losses.items()), validation, base)


def loss_plot(curve: LossCurve) -> Plot | None:
    """Return the plot of a curve and what to read from it; None for fewer than two steps."""
    if len(curve.losses) < 2:
        return None
    note = in_words(curve)
    drawn = svg("loss", (7.6, 2.9), partial(_draw, curve=curve), note)
    return Plot("Loss over training steps", note, Markup(drawn))


def in_words(curve: LossCurve) -> str:
    """Return what the curve shows, for those who cannot see it and those who cannot read it."""
    smooth = smoothed(curve.losses)
    text = (
        f"Smoothed training loss: {smooth[0][1]:.3f} at step {smooth[0][0]}, {smooth[-1][1]:.3f} "
        f"at step {smooth[-1][0]}. The faint line is the loss of each single step."
    )
    if curve.validation and curve.base:
        last = curve.validation[-1][1]
        change = (last - curve.base) / curve.base
        text += (
            f" Dots: loss on held-out pictures at fixed noise, {last:.3f} at the end, "
            f"{abs(change):.1%} {'below' if change < 0 else 'above'} the untouched base's "
            f"{curve.base:.3f} (dashed)."
        )
    return text


def smoothed(losses: Points) -> list[tuple[int, float]]:
    """Return the running means of the losses, the first steps not biased towards 0."""
    mean, weight, result = 0.0, 0.0, []
    for step, loss in losses:
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        weight = SMOOTHING * weight + (1 - SMOOTHING)
        result.append((step, mean / weight))
    return result


def _draw(figure: Figure, curve: LossCurve) -> None:
    axes = figure.add_subplot()
    axes.plot(*zip(*curve.losses, strict=True), color=FAINT, linewidth=1, gid="steps")
    if curve.base:
        axes.axhline(curve.base, color=PLAIN, linestyle="--", linewidth=1)
    axes.plot(*zip(*smoothed(curve.losses), strict=True), color=INK, linewidth=2)
    if curve.validation:
        steps, losses = zip(*curve.validation, strict=True)
        axes.plot(steps, losses, color=COLOURS[1], marker="o", markersize=5, linestyle="none")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.set_xlabel("training step")
    axes.set_ylabel("loss")
    axes.margins(x=0.02)
    axes.grid(color=FAINT, linewidth=0.5, alpha=0.6)
