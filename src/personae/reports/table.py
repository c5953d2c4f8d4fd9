"""The table of a report: measures down, techniques across, with intervals, ranks and ties."""

from __future__ import annotations

from dataclasses import dataclass

from personae.core.units import show
from personae.study.comparison.comparison import Comparison
from personae.study.comparison.measures import COSTS, RAW, Measure
from personae.study.comparison.rows import Row


@dataclass(frozen=True, slots=True)
class TableEntry:
    """One number: its mean, its interval, and whether nothing is better beyond a tie."""

    mean: str
    interval: str
    best: bool
    tied: bool


@dataclass(frozen=True, slots=True)
class TableLine:
    """One measure over all rows; `better` says where better is."""

    measure: Measure
    better: str
    entries: list[TableEntry]


@dataclass(frozen=True, slots=True)
class Table:
    """Column titles and groups of lines: what was drawn, what it cost, and plain values."""

    columns: list[str]
    quality: list[TableLine]
    costs: list[TableLine]
    raw: list[TableLine]


def table(comparison: Comparison) -> Table:
    """Return the table of a comparison."""
    lines = [_line(measure, comparison) for measure in comparison.measures.values()]
    return Table(
        [row.title for row in comparison.rows],
        [line for line in lines if line.measure.name not in (*COSTS, *RAW)],
        [line for name in COSTS for line in lines if line.measure.name == name],
        [line for line in lines if line.measure.name in RAW],
    )


def _line(measure: Measure, comparison: Comparison) -> TableLine:
    better = "higher is better" if measure.better == "higher" else "lower is better"
    return TableLine(measure, better, [_entry(measure, row) for row in comparison.rows])


def _entry(measure: Measure, row: Row) -> TableEntry:
    interval = row.intervals.get(measure.name)
    if interval is None or interval.mean != interval.mean:
        return TableEntry("\N{EN DASH}", "", best=False, tied=False)
    rank = row.ranks.get(measure.name)
    spread = ""
    if interval.units > 1 and interval.high > interval.low:
        spread = f"{text(measure, interval.low)} to {text(measure, interval.high)}"
    best = rank is not None and rank.place == 1
    if measure.name in COSTS:
        best = False
    return TableEntry(text(measure, interval.mean), spread, best, bool(best and rank and rank.ties))


def text(measure: Measure, value: float) -> str:
    """Return a number as the table shows it."""
    match measure.form:
        case "share":
            return f"{value:.0%}"
        case "cost":
            return show(measure.name, value)
        case _:
            return f"{value:.3f}"
