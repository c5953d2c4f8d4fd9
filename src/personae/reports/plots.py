"""The plots of a report: what is traded for what, and how sure each number is."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from personae.evaluation.statistics import Interval
from personae.reports.looks import FAINT, INK, PLAIN, Look, looks, svg
from personae.reports.table import text
from personae.study.comparison.comparison import Comparison
from personae.study.comparison.measures import COSTS, Measure, measured
from personae.study.comparison.rows import Row

TRADES = ("seconds", "file_bytes", "peak_bytes")
DOTTED = (
    "likeness_share",
    "likeness_share_second",
    "agreement_share",
    "agreement",
    "right_prompt",
    "consistency",
    "medium_adherence",
    "diversity",
    "drift",
    "prior_collapse",
    "copies",
)


LETTER, LINE = 6.2, 12.0
"""Width of a letter and height of a line of a name, in points."""


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot and what to read from it."""

    title: str
    note: str
    svg: Markup


def trade_offs(comparison: Comparison) -> list[Plot]:
    """Return likeness against agreement and against each cost, with the Pareto front."""
    plots = []
    likeness = comparison.likeness
    for name in (comparison.agreement, *TRADES):
        points = [
            (row, x, y)
            for row in comparison.trained
            if (x := row.mean(name)) is not None and (y := row.mean(likeness)) is not None
        ]
        if not points:
            continue
        measure = measured(name)
        front = pareto(points, higher=measure.better == "higher")
        note = f"Nobody beats on both: {', '.join(row.title for row in front)}."
        paint = partial(
            _scatter, comparison=comparison, measure=measure, points=points, front=front
        )
        label = f"Likeness against {measure.title}. {note}"
        drawn = svg(f"trade-{name}", (4.4, 3.5), paint, label)
        plots.append(Plot(f"Likeness against {measure.title}", note, Markup(drawn)))
    return plots


def pareto(points: Sequence[tuple[Row, float, float]], *, higher: bool) -> list[Row]:
    """Return the rows that no other row equals or beats in both numbers and beats in one.

    Args:
        points: (row, first number, second number); of the second, higher is better.
        higher: whether higher is better in the first number too.
    """
    sign = 1 if higher else -1
    return [
        row
        for row, x, y in points
        if not any(
            sign * other_x >= sign * x and other_y >= y and (other_x, other_y) != (x, y)
            for _, other_x, other_y in points
        )
    ]


def _scatter(
    figure: Figure,
    comparison: Comparison,
    measure: Measure,
    points: list[tuple[Row, float, float]],
    front: list[Row],
) -> None:
    axes, seen = figure.add_subplot(), looks(comparison)
    if measure.name in COSTS and max(x for _, x, _ in points) > 5 * min(x for _, x, _ in points):
        axes.set_xscale("log")
    on_front = sorted((x, y) for row, x, y in points if row in front)
    axes.plot(*zip(*on_front, strict=True), color=FAINT, linewidth=2, zorder=1)
    likeness = comparison.likeness
    for row, x, y in points:
        intervals = (row.intervals[measure.name], row.intervals[likeness])
        _point(axes, (x, y), intervals, seen[row.name], filled=row in front)
    before = comparison.untouched
    reached = before.mean(likeness) if before else None
    if reached is not None:
        _untouched_line(axes, reached)
    axes.margins(x=0.22, y=0.2)
    _names(axes, points, seen)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: text(measure, value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    if axes.get_xscale() == "linear":
        axes.locator_params(axis="x", nbins=4)
    axes.set_ylabel(measured(likeness).title)
    better = "right" if measure.better == "higher" else "left"
    axes.set_xlabel(f"{measure.title} (better: {better})")
    axes.grid(color=FAINT, linewidth=0.5, alpha=0.6)


def _untouched_line(axes: Axes, likeness: float) -> None:
    axes.axhline(likeness, color=PLAIN, linestyle=":", linewidth=1)
    axes.annotate(
        "untouched base",
        (1, likeness),
        xytext=(0, 3),
        fontsize=8.5,
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha="right",
        color=PLAIN,
    )


def _point(
    axes: Axes,
    at: tuple[float, float],
    intervals: tuple[Interval, Interval],
    look: Look,
    *,
    filled: bool,
) -> None:
    """Draw a row with its intervals and its name; hollow if another beats it in both numbers."""
    x, y = at
    wide, tall = intervals
    axes.errorbar(
        x,
        y,
        xerr=[[max(0.0, x - wide.low)], [max(0.0, wide.high - x)]],
        yerr=[[max(0.0, y - tall.low)], [max(0.0, tall.high - y)]],
        color=look.colour,
        marker=look.marker,
        markersize=9,
        markerfacecolor=look.colour if filled else "white",
        linewidth=1.2,
        zorder=3,
    )


def _names(axes: Axes, points: list[tuple[Row, float, float]], seen: dict[str, Look]) -> None:
    """Write each row's name beside its mark, where it covers none written before."""
    taken: list[tuple[float, float, float, float]] = []
    for row, x, y in points:
        left, low = axes.transData.transform((x, y)) / axes.figure.dpi * 72  # in points
        boxes = {
            (right, up): _box(left, low, right, up, len(row.title))
            for right, up in itertools.product((True, False), (7, -15, 20, -28))
        }
        right, up = min(boxes, key=lambda place: sum(_overlap(boxes[place], b) for b in taken))
        taken.append(boxes[right, up])
        axes.annotate(
            row.title,
            (x, y),
            xytext=(9 if right else -9, up),
            textcoords="offset points",
            ha="left" if right else "right",
            color=seen[row.name].colour,
            fontsize=9.5,
            fontweight="bold",
            zorder=4,
        )


def _box(
    left: float, low: float, right: bool, up: float, letters: int
) -> tuple[float, float, float, float]:
    """Return where a name of so many letters lies: left, low, right, high, in points."""
    wide = LETTER * letters
    start = left + 9 if right else left - 9 - wide
    return (start, low + up, start + wide, low + up + LINE)


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(0.0, width) * max(0.0, height)


def dots(comparison: Comparison) -> list[Plot]:
    """Return one plot per measure: each row's mean and interval, and the ceiling if any."""
    plots = []
    for name in DOTTED:
        if name == "agreement" and comparison.agreement != name:
            continue
        means = [
            (row, mean)
            for row in comparison.rows
            if row.kind != "real" and (mean := row.mean(name)) is not None
        ]
        rows = [row for row, _ in means]
        if len(rows) < 2:
            continue
        measure = measured(name)
        told = "; ".join(f"{row.title} {text(measure, mean)}" for row, mean in means)
        size = (4.4, 0.75 + 0.34 * len(rows))
        paint = partial(_dots, comparison=comparison, measure=measure, rows=rows)
        drawn = svg(f"dots-{name}", size, paint, f"{measure.title}: {told}")
        plots.append(Plot(measure.title, f"{measure.better} is better", Markup(drawn)))
    return plots


def _dots(figure: Figure, comparison: Comparison, measure: Measure, rows: list[Row]) -> None:
    axes, seen = figure.add_subplot(), looks(comparison)
    for place, row in enumerate(rows):
        interval, look = row.intervals[measure.name], seen[row.name]
        axes.plot([interval.low, interval.high], [place, place], color=look.colour, linewidth=2.4)
        at = (interval.mean, place)
        axes.plot(*at, color=look.colour, marker=look.marker, markersize=8, clip_on=False)
    ceiling = next((row.mean(measure.name) for row in comparison.rows if row.kind == "real"), None)
    if ceiling is not None:
        axes.axvline(ceiling, color=INK, linestyle="--", linewidth=1)
        axes.annotate(
            "real pictures",
            (ceiling, 1),
            xytext=(-3, -1),
            fontsize=8.5,
            ha="right",
            va="bottom",
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            color=INK,
        )
    axes.set_yticks(range(len(rows)), [row.title for row in rows])
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.margins(x=0.08)
    if measure.form == "share" and all(row.intervals[measure.name].low >= 0 for row in rows):
        axes.set_xlim(left=max(0.0, axes.get_xlim()[0]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(measure, value)))
    axes.locator_params(axis="x", nbins=5)
    axes.grid(axis="x", color=FAINT, linewidth=0.5, alpha=0.6)
    axes.spines["left"].set_visible(False)


def _tick(measure: Measure, value: float) -> str:
    return f"{value:.0%}" if measure.form == "share" else f"{value:.2f}"
