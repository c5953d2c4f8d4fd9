"""What a study found: its cells gathered into one row per technique, with intervals and ranks.

Values of two rows are paired by character, seed and picture. Intervals resample prompts within
characters, so they say how sure the means are for these characters, not for all there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from personae.errors import StudyError
from personae.evaluation.statistics import (
    CONFIDENCE,
    Difference,
    paired_difference,
    rank,
    smallest_visible,
)
from personae.study.comparison.measures import COSTS, ORDER, Measure, measured
from personae.study.comparison.rows import Key, Row, gather, make_rows, refuse_mixtures, unit_of
from personae.study.study import Study


@dataclass(frozen=True, slots=True)
class Comparison:
    """All rows of a study and what can be told of them.

    Attributes:
        study: where it comes from.
        rows: trained ones in the order of the study, then the untouched base, then the real ones.
        measures: {name: what is measured}, those that any row has.
        unusable: {cell: why it does not count}.
    """

    study: Study
    rows: list[Row]
    measures: dict[str, Measure]
    unusable: dict[str, str]

    @classmethod
    def of(cls, study: Study) -> Self:
        """Gather what is done; the rest is listed as unusable.

        Raises:
            StudyError: nothing is done yet, or cells were made on different versions of a base
                or judged by different encoders.
        """
        found, unusable = gather(study.cells)
        refuse_mixtures(found)
        if not any(each.cell.spec.kind == "trained" for each in found):
            reason = next(iter(unusable.values()), "it is empty")
            again = "; --retry-failed runs failed cells again" if study.failed() else ""
            raise StudyError(
                f"{study.folder}: no technique has a result to compare yet ({reason}){again}"
            )
        rows = make_rows(found)
        names = dict.fromkeys(name for row in rows for name in (*row.values, *row.intervals))
        known = [name for name in ORDER if name in names]
        ordered = {name: measured(name) for name in (*known, *sorted(set(names) - set(known)))}
        comparison = cls(study, rows, ordered, unusable)
        comparison._rank()
        return comparison

    @property
    def trained(self) -> list[Row]:
        """Return the rows of techniques."""
        return [row for row in self.rows if row.kind == "trained"]

    @property
    def untouched(self) -> Row | None:
        """Return the row of the base alone, if it was measured."""
        return next((row for row in self.rows if row.kind == "untouched"), None)

    @property
    def likeness(self) -> str:
        """Return the measure of likeness that the verdict takes: of both encoders, if both saw."""
        return "likeness_both" if "likeness_both" in self.measures else "likeness_share"

    @property
    def agreement(self) -> str:
        """Return the measure of agreement that the verdict takes: on its scale, if it has one."""
        return "agreement_share" if "agreement_share" in self.measures else "agreement"

    @property
    def characters(self) -> list[str]:
        """Return the names of the characters, in the order of the study."""
        return list(dict.fromkeys(each.character for row in self.rows for each in row.cells))

    def row(self, name: str) -> Row | None:
        """Return the row of that name, or None."""
        return next((row for row in self.rows if row.name == name), None)

    def difference(
        self, measure: str, first: Row, second: Row, *, confidence: float = CONFIDENCE
    ) -> Difference:
        """Return first - second over what both have: pictures, or cells for a cost."""
        values: list[Mapping[Any, float]] = [
            row.costs.get(measure, {}) if measure in COSTS else row.values.get(measure, {})
            for row in (first, second)
        ]
        if measure not in COSTS and not first.kind == second.kind == "trained":
            values = [_any_seed(each) for each in values]
        keys = sorted(set(values[0]) & set(values[1]))
        ours, theirs = (np.array([each[key] for key in keys]) for each in values)
        units = None if measure in COSTS else [unit_of(key) for key in keys]
        return paired_difference(ours, theirs, units, confidence=confidence)

    def visible(self, measure: str) -> float:
        """Return the smallest difference between techniques that the study could see."""
        arrays, units = self._arrays(measure)
        return smallest_visible(arrays, units) if len(arrays) > 1 else float("nan")

    def _rank(self) -> None:
        for name, measure in self.measures.items():
            arrays, units = self._arrays(name)
            if measure.better is None or len(arrays) < 2:
                continue
            for place in rank(arrays, measure.better, units):
                row = self.row(place.name)
                if row is not None:
                    row.ranks[name] = place

    def _arrays(self, measure: str) -> tuple[dict[str, np.ndarray], list[Any]]:
        """Return {trained row: values in one order} and the unit each value belongs to."""
        cost = measure in COSTS
        source: dict[str, Mapping[Any, float]] = {
            row.name: (row.costs if cost else row.values).get(measure, {}) for row in self.trained
        }
        source = {name: values for name, values in source.items() if values}
        keys = sorted(set().union(*source.values())) if source else []
        arrays = {
            name: np.array([values.get(key, np.nan) for key in keys], dtype=float)
            for name, values in source.items()
        }
        return arrays, [unit_of(key) for key in keys]


def _any_seed(values: Mapping[Key, float]) -> dict[tuple[str, int, str, int], float]:
    """Average over training seeds, which the untouched base does not have."""
    groups: dict[tuple[str, int, str, int], list[float]] = {}
    for (character, _, shot, seed), value in values.items():
        groups.setdefault((character, 0, shot, seed), []).append(value)
    return {key: float(np.mean(group)) for key, group in groups.items()}
