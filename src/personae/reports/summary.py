"""The summary of a study as one picture: verdict, a few prompts, likeness and costs."""

from __future__ import annotations

import textwrap
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec

from personae.core.files import replacing
from personae.core.units import show
from personae.evaluation.statistics import Interval
from personae.reports.embedded_picture import open_picture
from personae.reports.looks import FAINT, INK, PLAIN, looks, style
from personae.study.comparison.comparison import Comparison
from personae.study.comparison.rows import FinishedCell, Row
from personae.study.comparison.verdict import Verdict
from personae.study.result import CellPicture

SHOTS = 4
DPI = 160
BARS = {"likeness_share": 0.95, "likeness_share_second": 0.7, "agreement_share": 0.35}
"""{what is drawn: how opaque}, from above."""
KEYS = {
    "likeness_share": "likeness by the first encoder",
    "likeness_share_second": "by the second",
    "agreement_share": "agreement with prompts",
}


def write(comparison: Comparison, verdict: Verdict, path: Path) -> None:
    """Write the picture as PNG."""
    rows = [row for row in (comparison.untouched, *comparison.trained) if row is not None]
    with style("summary"):
        figure = Figure(figsize=(9.6, 1.4 + 0.62 * SHOTS + 0.46 * len(rows)), dpi=DPI)
        figure.patch.set_facecolor("white")
        headline = textwrap.fill(verdict.headline, 92)
        figure.text(0.03, 0.975, headline, fontsize=12.5, fontweight="bold", va="top", color=INK)
        grid = figure.add_gridspec(
            1, 2, left=0.03, right=0.97, top=0.84, bottom=0.1, wspace=0.32, width_ratios=[1.15, 1]
        )
        _pictures(figure, grid[0], rows)
        _bars(figure, grid[1], rows, comparison)
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png", metadata={"Software": "personae"})


def _pictures(figure: Figure, place: SubplotSpec, rows: list[Row]) -> None:
    """Draw a few shots of the first character: a technique per line, a prompt per column."""
    grid = place.subgridspec(len(rows), SHOTS, wspace=0.04, hspace=0.06)
    for line, row in enumerate(rows):
        found = row.cells[0]
        for column, (prompt, file) in enumerate(_chosen(found)):
            axes = figure.add_subplot(grid[line, column])
            image = open_picture(file)
            if image is not None:
                axes.imshow(image, interpolation="lanczos")
            axes.set_xticks([])
            axes.set_yticks([])
            for spine in axes.spines.values():
                spine.set_visible(False)
            if line == 0:
                axes.set_title(
                    textwrap.fill(prompt, 16),
                    fontsize=7,
                    fontweight="normal",
                    loc="center",
                    color=PLAIN,
                )


def _chosen(found: FinishedCell) -> list[tuple[str, Path]]:
    first: dict[str, CellPicture] = {}
    for picture in found.result.pictures:
        first.setdefault(picture.shot, picture)
    pictures = list(first.values())
    step = max(1, len(pictures) // SHOTS)
    chosen = pictures[::step][:SHOTS]
    return [(each.prompt, found.cell.pictures / each.file) for each in chosen]


def _bar(
    axes: Axes, interval: Interval, at: float, thick: float, colour: str, alpha: float
) -> None:
    axes.barh(at, max(0.0, interval.mean), color=colour, height=thick, alpha=alpha)
    spread = [max(0.0, interval.low), max(0.0, interval.high)]
    axes.plot(spread, [at, at], color=INK, linewidth=1)
    if interval.mean > 0.2:
        ink = "white" if alpha > 0.5 else INK
        axes.text(0.02, at, f"{interval.mean:.0%}", va="center", fontsize=7, color=ink)


def _bars(figure: Figure, place: SubplotSpec, rows: list[Row], comparison: Comparison) -> None:
    """Draw a bar for each encoder's likeness and for agreement: all that the choice is made by."""
    axes, seen = figure.add_subplot(place), looks(comparison)
    shown = [name for name in BARS if any(row.mean(name) is not None for row in rows)]
    thick = 0.75 / max(1, len(shown))
    for height, row in enumerate(rows):
        for number, name in enumerate(shown):
            if row.mean(name) is not None:
                at = height + (number - (len(shown) - 1) / 2) * thick
                colour = seen[row.name].colour
                _bar(axes, row.intervals[name], at, 0.86 * thick, colour, BARS[name])
        ends = [row.intervals[name].high for name in shown if row.mean(name) is not None]
        costs = row.cost_means
        told = [show(name, costs[name]) for name in ("seconds", "file_bytes") if name in costs]
        axes.annotate(
            "\n".join(told),
            (max([1.0, *ends]), height),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
        )
    axes.axvline(1, color=INK, linestyle="--", linewidth=1, zorder=1)
    axes.set_yticks(range(len(rows)), [row.title for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 1.45)
    axes.set_xticks([0, 0.5, 1], ["0%", "50%", "real pictures"])
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    if len(shown) > 1:
        order = ", ".join(KEYS[name] for name in shown)
        axes.set_xlabel(textwrap.fill(f"from above: {order}", 44), fontsize=8)
    axes.set_title("likeness and agreement" if len(shown) > 1 else "likeness")
    axes.grid(axis="x", color=FAINT, linewidth=0.5)
    axes.set_axisbelow(True)
