"""How rows look in every plot: a colour, a marker and a name, so that none of them is needed alone.

Colours are those of Okabe and Ito (2008), which people with any colour vision tell apart.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from personae.study.comparison.comparison import Comparison

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F5AA2", "#8A6D3B")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
PLAIN = "#6b7280"
INK = "#1f2933"
FAINT = "#d5dae1"
UNSTATED = dict.fromkeys(("Date", "Creator", "Format", "Type"))
"""What a plot does not say of itself, so that the same numbers give the same bytes."""


@dataclass(frozen=True, slots=True)
class Look:
    """A row's colour and marker."""

    colour: str
    marker: str


def looks(comparison: Comparison) -> dict[str, Look]:
    """Return the look of each row by its name."""
    trained = {
        row.name: Look(COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)])
        for i, row in enumerate(comparison.trained)
    }
    others = {row.name: Look(PLAIN, "x") for row in comparison.rows if row.name not in trained}
    return trained | others


@contextmanager
def style(name: str) -> Iterator[None]:
    """Draw in the page's style; ids in the SVG follow from `name`, so that files repeat."""
    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.size": 10,
        "axes.edgecolor": FAINT,
        "axes.labelcolor": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": PLAIN,
        "ytick.color": PLAIN,
        "text.color": INK,
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
    }
    with mpl.rc_context(settings):
        yield


def svg(name: str, size: tuple[float, float], paint: Callable[[Figure], None], label: str) -> str:
    """Return a plot as an SVG element.

    Args:
        name: unique on the page.
        size: in inches.
        paint: fills the figure.
        label: what the plot shows, for those who cannot see it.
    """
    with style(name):
        figure = Figure(figsize=size, layout="constrained")
        paint(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata=UNSTATED)
    text = buffer.getvalue()
    body = text[text.index("<svg") :]
    escaped = label.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return body.replace("<svg", f'<svg role="img" aria-label="{escaped}"', 1)
