"""The rows of a comparison: cells gathered by technique, with their values, costs and intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from personae.core.registry import lookup
from personae.errors import StudyError
from personae.evaluation.scores import Scores
from personae.evaluation.statistics import Interval, Rank, mean_interval
from personae.study.cell import Cell, CellKind, CellSpec
from personae.study.comparison.measures import LIKENESS_SHARES, derived_values, has_scale
from personae.study.result import CellResult, TrainingWarning
from personae.techniques.technique import Technique

Key = tuple[str, int, str, int]
"""Character, training seed, shot, picture seed."""
TITLES = {"untouched": "Untouched base", "real": "Real pictures"}


@dataclass(frozen=True, slots=True)
class FinishedCell:
    """A cell that is done, and its result."""

    cell: Cell
    result: CellResult

    @property
    def character(self) -> str:
        """Return the character's name."""
        return self.result.character.name

    @property
    def scores(self) -> Scores:
        """Return every metric."""
        return self.result.scores

    @property
    def seed(self) -> int:
        """Return the seed it was trained with."""
        return self.result.seed

    @property
    def warnings(self) -> list[TrainingWarning]:
        """Return what the learning monitor warned of; nothing for what was not trained."""
        return self.result.curve.warnings if self.result.curve else []


@dataclass(slots=True)
class Row:
    """A technique (at one setting of the swept fields), the base alone, or the real pictures.

    Attributes:
        name: unique in the study. title: for people.
        kind: trained, untouched or real.
        cells: those that are done. values: {measure: {key: value}}, one per picture.
        costs: {cost: {(character, seed): amount}}.
        intervals: {measure or cost: its mean and where it lies}.
        ranks: {measure: its place among the trained rows}.
    """

    name: str
    title: str
    kind: CellKind
    cells: list[FinishedCell]
    values: dict[str, dict[Key, float]] = field(default_factory=dict)
    costs: dict[str, dict[tuple[str, int], float]] = field(default_factory=dict)
    intervals: dict[str, Interval] = field(default_factory=dict)
    ranks: dict[str, Rank] = field(default_factory=dict)

    def mean(self, measure: str) -> float | None:
        """Return the mean of a measure or cost, or None where there is none."""
        interval = self.intervals.get(measure)
        return None if interval is None or np.isnan(interval.mean) else interval.mean

    @property
    def cost_means(self) -> dict[str, float]:
        """Return the mean of each cost."""
        return {cost: self.intervals[cost].mean for cost in self.costs if cost in self.intervals}


def unit_of(key: Sequence[Any]) -> Any:
    """Return what is resampled together: all pictures of a character's prompt, or one cell."""
    return (key[0], key[2]) if len(key) == 4 else key


def gather(cells: Sequence[Cell]) -> tuple[list[FinishedCell], dict[str, str]]:
    """Return the cells that are done, and {cell: why} of those that do not count."""
    found, unusable = [], {}
    for cell in cells:
        result = cell.result()
        if isinstance(result, CellResult):
            found.append(FinishedCell(cell, result))
        else:
            unusable[cell.name] = cell.problem or "is pending"
    return found, unusable


def refuse_mixtures(found: Sequence[FinishedCell]) -> None:
    """Refuse to compare what was not measured alike.

    Raises:
        StudyError: cells were made on different versions of a base, or judged by different
            encoders.
    """
    bases: dict[str, str] = {}
    encoders: dict[str, dict[str, str]] = {}
    for each in found:
        base = each.result.base
        known = bases.setdefault(base.source, base.fingerprint)
        if known != base.fingerprint:
            raise StudyError(
                f"{each.cell.folder}: was made on another version of base '{base.source}' "
                f"({base.fingerprint}, others {known}); delete the older cells and run again"
            )
        seen = encoders.setdefault(base.source, each.scores.encoders)
        if seen != each.scores.encoders:
            raise StudyError(
                f"{each.cell.folder}: was judged by other encoders than the rest "
                f"({each.scores.encoders}, others {seen}); delete the older cells and run again"
            )


def make_rows(found: Sequence[FinishedCell]) -> list[Row]:
    """Return the rows: trained ones in the order found, then the base alone, then the real."""
    several = len({each.result.base.source for each in found}) > 1
    scaled = all(has_scale(e.scores.metrics) for e in found if e.cell.spec.kind == "trained")
    rows: dict[str, Row] = {}
    for each in sorted(found, key=lambda each: _KIND_ORDER[each.cell.spec.kind]):
        spec = each.cell.spec
        base = spec.run.base if several else None
        name = f"{spec.row} on {base}" if base else spec.row
        if name not in rows:
            rows[name] = Row(name, _title(spec, base), spec.kind, [])
        rows[name].cells.append(each)
    for row in rows.values():
        _fill(row, scaled)
    return list(rows.values())


_KIND_ORDER = {"trained": 0, "untouched": 1, "real": 2}


def _title(spec: CellSpec, base: str | None) -> str:
    """Return a row's name for people: "LoRA (rank 16, learning rate 0.003) on toon"."""
    technique = TITLES.get(spec.kind) or " + ".join(
        lookup(Technique, each.strip()).title for each in spec.run.technique.split("+")
    )
    swept = [
        f"{name.split('.')[-1].replace('_', ' ')} {value}" for name, value in spec.swept.items()
    ]
    return technique + (f" ({', '.join(swept)})" if swept else "") + (f" on {base}" if base else "")


def _fill(row: Row, scaled: bool) -> None:
    """Collect a row's values and costs, and their intervals; see `derived_values` for `scaled`."""
    for each in row.cells:
        for cost, amount in each.result.costs.items():
            row.costs.setdefault(cost, {})[(each.character, each.seed)] = amount
        for measure, values in _values(each, scaled):
            row.values.setdefault(measure, {}).update(values)
    for measure, values in row.values.items():
        row.intervals[measure] = mean_interval(
            np.array(list(values.values())), [unit_of(key) for key in values]
        )
    for cost, amounts in row.costs.items():
        row.intervals[cost] = mean_interval(np.array(list(amounts.values()), dtype=float))
    if row.kind == "real":
        _fill_real(row)


def _fill_real(row: Row) -> None:
    """Give the real pictures their ceilings, which have no value per picture."""
    names = dict.fromkeys(name for each in row.cells for name in each.scores.metrics)
    for name in names:
        means = [each.scores.metrics[name].mean for each in row.cells]
        known = [mean for mean in means if mean is not None]
        if name not in row.values and len(known) == len(means):
            mean = float(np.mean(known))
            row.intervals[name] = Interval(mean, mean, mean, len(means))
    for name, share in (*LIKENESS_SHARES.items(), ("prompt_following", "agreement_share")):
        if name in row.intervals:
            row.intervals[share] = Interval(1.0, 1.0, 1.0, len(row.cells))
    if all(share in row.intervals for share in LIKENESS_SHARES.values()):
        row.intervals["likeness_both"] = Interval(1.0, 1.0, 1.0, len(row.cells))


def _values(each: FinishedCell, scaled: bool) -> Iterator[tuple[str, dict[Key, float]]]:
    """Yield (measure, {key: value}) of a cell: every metric, and what is derived from them."""
    for name, score in each.scores.metrics.items():
        if score.values:
            yield name, _keyed(each, score.keys, score.values)
    for name, keys, values in derived_values(each.scores.metrics, scaled=scaled):
        yield name, _keyed(each, keys, values)


def _keyed(
    each: FinishedCell, keys: Sequence[Any], values: Sequence[float | None]
) -> dict[Key, float]:
    return {
        (each.character, each.seed, shot, seed): float("nan") if value is None else float(value)
        for (shot, seed), value in zip(keys, values, strict=True)
    }
