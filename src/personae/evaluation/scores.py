"""Scores of pictures: what a metric said, with its interval, and the file they lie in."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Self

import numpy as np

from personae.errors import UsageError
from personae.evaluation.metric import Better

FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Score:
    """One metric over the pictures it applies to.

    Attributes:
        unit, better: of the metric.
        values: one per picture, None where it does not apply.
        keys: the (shot, seed) of each value, to pair it with another technique's.
        mean, low, high: of the values, with the bootstrap interval over shots; None if no value.
        ceiling: what real pictures reach, or None.
        share: (mean - floor) / (ceiling - floor), or None.
        details: further findings of the metric.
        note: why there is no value, or None.
        floor: what pictures reach that have nothing of it (other characters); None is 0.
    """

    unit: str
    better: Better
    values: tuple[float | None, ...] = ()
    keys: tuple[tuple[str, int], ...] = ()
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    ceiling: float | None = None
    share: float | None = None
    details: dict[str, Any] = field(default_factory=dict)
    note: str | None = None
    floor: float | None = None

    def shares(self) -> list[float | None]:
        """Return each value on the scale from the floor, 0, to the ceiling, 1; [] without one."""
        floor = self.floor or 0.0
        if not self.values or self.ceiling is None or self.ceiling <= floor:
            return []
        return [None if v is None else (v - floor) / (self.ceiling - floor) for v in self.values]

    def array(self) -> np.ndarray:
        """Return the values as float64 (n,), nan where there is none."""
        return np.array([math.nan if value is None else value for value in self.values])

    def shots(self) -> tuple[str, ...]:
        """Return the shot of each value: the units that statistics resample together."""
        return tuple(shot for shot, _ in self.keys)


@dataclass(frozen=True, slots=True)
class Scores:
    """Every metric of one technique on one character.

    Attributes:
        metrics: {metric name: its score}.
        encoders: {role: encoder and weights}.
        pictures: how many pictures of the character were measured.
        unseen: in how many of them the identity encoder found nothing (no face); they count as
            likeness 0 and are not dropped.
    """

    metrics: dict[str, Score]
    encoders: dict[str, str]
    pictures: int
    unseen: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, with the format's version."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Self:
        """Return what `to_dict` stored.

        Raises:
            UsageError: stored by a newer release, or not scores at all.
        """
        version = stored.get("format")
        if version != FORMAT:
            raise UsageError(
                f"scores have format {version!r}; this release reads {FORMAT}; measure again"
            )
        try:
            metrics = {name: _score(values) for name, values in stored["metrics"].items()}
            return cls(metrics, stored["encoders"], stored["pictures"], stored["unseen"])
        except (KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"scores are incomplete ({error}); measure again") from None


def _score(stored: dict[str, Any]) -> Score:
    keys = tuple((shot, seed) for shot, seed in stored["keys"])
    return Score(**{**stored, "values": tuple(stored["values"]), "keys": keys})
