"""Learning curves of a study, a line for each technique; `loss_curve` draws that of one run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from personae.reports.looks import FAINT, PLAIN, looks, svg
from personae.reports.plots import Plot
from personae.study.comparison.comparison import Comparison
from personae.study.comparison.rows import Row
from personae.study.result import LearningCurve

Points = list[tuple[int, float]]


def curves(comparison: Comparison) -> list[Plot]:
    """Return the curves there are: scores need runs that kept the best checkpoint."""
    wanted: list[tuple[str, str, str, Callable[[LearningCurve], Points]]] = [
        ("likeness", "Likeness of checkpoints", "higher is better", partial(_scored, "likeness")),
        (
            "agreement",
            "Agreement of checkpoints",
            "higher is better",
            partial(_scored, "agreement"),
        ),
        ("drift", "Drift of checkpoints", "lower is better", partial(_scored, "drift")),
        (
            "validation",
            "Loss on held-out pictures",
            "relative to the untouched base; below 0% is better",
            _validation,
        ),
    ]
    plots = []
    for name, title, note, read in wanted:
        lines = {row.name: _mean_curve(row, read) for row in comparison.trained}
        if any(len(line) > 1 for line in lines.values()):
            paint = partial(_draw, comparison=comparison, lines=lines, percent=name == "validation")
            drawn = svg(f"curve-{name}", (4.4, 3.1), paint, f"{title} over training steps")
            plots.append(Plot(title, note, Markup(drawn)))
    return plots


def _scored(name: str, curve: LearningCurve) -> Points:
    found = [(each.step, getattr(each, name)) for each in curve.scored]
    return [(step, value) for step, value in found if value is not None]


def _validation(curve: LearningCurve) -> Points:
    return [(step, loss / base - 1) for step, loss, base in curve.validation if base > 0]


def _mean_curve(row: Row, read: Callable[[LearningCurve], Points]) -> Points:
    """Return the mean over the row's cells at the steps that all of them reached."""
    values: dict[int, list[float]] = {}
    for curve in filter(None, (each.result.curve for each in row.cells)):
        for step, value in read(curve):
            values.setdefault(step, []).append(value)
    most = max(map(len, values.values()), default=0)
    return [
        (step, float(np.mean(all_))) for step, all_ in sorted(values.items()) if len(all_) == most
    ]


def _draw(figure: Figure, comparison: Comparison, lines: dict[str, Points], percent: bool) -> None:
    axes, seen = figure.add_subplot(), looks(comparison)
    for row in comparison.trained:
        line, look = lines[row.name], seen[row.name]
        if not line:
            continue
        steps, values = zip(*line, strict=True)
        axes.plot(
            steps,
            values,
            color=look.colour,
            marker=look.marker,
            markersize=6,
            linewidth=1.6,
            markevery=max(1, len(steps) // 6),
            label=row.title,
        )
    if percent:
        axes.axhline(0, color=PLAIN, linestyle=":", linewidth=1)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel("training step")
    axes.grid(color=FAINT, linewidth=0.5, alpha=0.6)
    axes.legend(frameon=False, fontsize=9)
