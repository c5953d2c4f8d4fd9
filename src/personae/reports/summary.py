"""The summary of a study as one picture: verdict, a few prompts, likeness and costs."""

from __future__ import annotations

import textwrap
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec

from personae.core.files import replacing
from personae.core.units import show
from personae.reports.looks import FAINT, INK, PLAIN, looks, style
from personae.reports.pictures import open_picture
from personae.study.comparison.comparison import Comparison
from personae.study.comparison.rows import Found, Row
from personae.study.comparison.verdict import Verdict

SHOTS = 4
DPI = 160


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
        found = row.found[0]
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


def _chosen(found: Found) -> list[tuple[str, Path]]:
    first = {}
    for picture in found.result.pictures:
        first.setdefault(picture.shot, picture)
    pictures = list(first.values())
    step = max(1, len(pictures) // SHOTS)
    chosen = pictures[::step][:SHOTS]
    return [(each.prompt, found.cell.pictures / each.file) for each in chosen]


def _bars(figure: Figure, place: SubplotSpec, rows: list[Row], comparison: Comparison) -> None:
    axes, seen = figure.add_subplot(place), looks(comparison)
    for height, row in enumerate(rows):
        interval = row.intervals.get("likeness_share")
        if interval is None:
            continue
        look = seen[row.name]
        axes.barh(height, interval.mean, color=look.colour, height=0.5, alpha=0.9)
        axes.plot([interval.low, interval.high], [height, height], color=INK, linewidth=1.2)
        costs = row.cost_means
        told = [show(name, costs[name]) for name in ("seconds", "file_bytes") if name in costs]
        axes.annotate(
            "  ".join([f"{interval.mean:.0%}", *told]),
            (interval.high, height),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
        )
    axes.axvline(1, color=INK, linestyle="--", linewidth=1, zorder=1)
    axes.set_yticks(range(len(rows)), [row.title for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 1.45)
    axes.set_xticks([0, 0.5, 1], ["0%", "50%", "real pictures"])
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.set_title("likeness, of the ceiling")
    axes.grid(axis="x", color=FAINT, linewidth=0.5)
    axes.set_axisbelow(True)
