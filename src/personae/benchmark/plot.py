"""A plot of a benchmark: step, first step, memory and picture of each technique, both sides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from personae.benchmark.results import OURS, THEIRS
from personae.core.files import replacing
from personae.core.units import show
from personae.reports.looks import COLOURS, PLAIN, UNSTATED, style

PANELS = {
    "step_seconds": "training step",
    "first_step_seconds": "start to first step done",
    "peak_bytes": "peak memory of training",
    "use_picture_seconds": "one picture",
}
SIDES = {OURS: COLOURS[0], THEIRS: PLAIN}
BAR = 0.38


def draw_plot(rows: list[dict[str, Any]], path: Path) -> Path:
    """Write bars of every cost that was measured as an SVG file and return its path."""
    names = [name for name in PANELS if any(name in row[OURS] for row in rows)]
    with style("benchmark"):
        height = 1.2 + 0.55 * len(rows)
        figure = Figure(figsize=(3.4 * len(names), height), layout="constrained")
        panels = figure.subplots(1, len(names), squeeze=False)[0]
        for axes, name in zip(panels, names, strict=True):
            _bars(axes, rows, name)
        panels[0].set_yticks(range(len(rows)), [_label(row) for row in rows])
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
        with replacing(path) as temporary:
            figure.savefig(temporary, format="svg", metadata=UNSTATED)
    return path


def _bars(axes: Axes, rows: list[dict[str, Any]], name: str) -> None:
    axes.set_title(PANELS[name])
    for shift, (side, colour) in zip((-BAR / 2, BAR / 2), SIDES.items(), strict=True):
        there = [(i, row[side][name]) for i, row in enumerate(rows) if name in row.get(side, {})]
        if not there:
            continue
        places = [i + shift for i, _ in there]
        values = [value for _, value in there]
        bars = axes.barh(places, values, BAR, color=colour, label=side)
        axes.bar_label(bars, [show(name, value) for value in values], padding=3, fontsize=8.5)
    axes.set_yticks([])
    axes.set_xticks([])
    axes.set_xmargin(0.3)
    axes.set_xlim(left=0)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.spines["bottom"].set_visible(False)


def _label(row: dict[str, Any]) -> str:
    return f"{row['technique'].replace('_', ' ')}\n{row['precision']}"
