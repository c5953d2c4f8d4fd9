"""Intervals, paired differences, ties and ranks: what a comparison may claim.

Values are one per picture. Pictures of the same prompt are alike, so whole units (such as all seeds
of a prompt) can be resampled together. Only numpy is used; values may hold nan, which is left out.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist
from typing import Final, Literal

import numpy as np

from personae.errors import UsageError

CONFIDENCE: Final = 0.95
"""Probability with which an interval covers the true mean."""

POWER: Final = 0.8
"""Probability with which a difference of the smallest detectable size is found (Cohen 1988)."""

RESAMPLES: Final = 4000
"""Bootstrap resamples: the ends of a 95 % interval then vary by about 2 % of its width."""

Method = Literal["bca", "percentile"]


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and where it lies.

    Attributes:
        mean: mean of the values.
        low, high: ends of the interval; both equal the mean where there is a single unit, or none
            varies.
        units: how many independent units were resampled.
    """

    mean: float
    low: float
    high: float
    units: int


@dataclass(frozen=True, slots=True)
class Difference:
    """A paired difference of two means.

    Attributes:
        interval: of first - second.
        standard_error: of that difference.
        tie: the interval covers 0, or there are too few units to tell.
    """

    interval: Interval
    standard_error: float

    @property
    def tie(self) -> bool:
        """Say whether the data cannot tell which is greater."""
        return self.interval.units < 2 or self.interval.low <= 0 <= self.interval.high


@dataclass(frozen=True, slots=True)
class Rank:
    """A place in a ranking with ties.

    Attributes:
        name: what is ranked.
        place: 1 + the number of others that are better beyond a tie.
        interval: of its mean.
        ties: the others it cannot be told from.
    """

    name: str
    place: int
    interval: Interval
    ties: tuple[str, ...]


def mean_interval(
    values: np.ndarray,
    units: Sequence[Hashable] | None = None,
    *,
    confidence: float = CONFIDENCE,
    method: Method = "bca",
    seed: int = 0,
) -> Interval:
    """Return the mean of `values` (n,) with its bootstrap interval.

    Args:
        values: one per picture; nan is left out.
        units: what each value belongs to; values of one unit are resampled together. None: each
            value is a unit of its own.
        confidence: coverage, in (0, 1).
        method: "bca" (bias-corrected and accelerated) or "percentile".
        seed: of the resampling, so that a report is the same each time it is made.

    Returns:
        The interval; mean, low and high are nan if no value is left.

    Raises:
        UsageError: `confidence` is out of range, or `units` has another length.

    Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapters 13 and 14.3;
    units are resampled as in Davison and Hinkley 1997, section 3.8 (strategy 1).
    """
    if not 0 < confidence < 1:
        raise UsageError(f"confidence is {confidence}; it must be above 0 and below 1")
    sums, counts = _per_unit(values, units)
    if not len(sums):
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    mean = float(sums.sum() / counts.sum())
    if len(sums) == 1 or np.ptp(sums / counts) == 0:
        return Interval(mean, mean, mean, len(sums))
    means = _resampled(sums, counts, seed)
    tails = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    if method == "bca":
        tails = _bca_tails(tails, means, mean, sums, counts)
    low, high = np.quantile(means, tails)
    return Interval(mean, float(low), float(high), len(sums))


def paired_difference(
    first: np.ndarray,
    second: np.ndarray,
    units: Sequence[Hashable] | None = None,
    *,
    confidence: float = CONFIDENCE,
    method: Method = "bca",
    seed: int = 0,
) -> Difference:
    """Return the mean of first - second, both (n,), of the same prompts and seeds in one order.

    Pairs with a nan are left out. See `mean_interval` for the other arguments.

    Raises:
        UsageError: the two have different lengths.
    """
    first, second = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if first.shape != second.shape:
        raise UsageError(
            f"a paired difference needs the same pictures on both sides; there are {len(first)} "
            f"and {len(second)}; draw the same prompts and seeds for both"
        )
    gap = first - second
    interval = mean_interval(gap, units, confidence=confidence, method=method, seed=seed)
    sums, counts = _per_unit(gap, units)
    error = float(_resampled(sums, counts, seed).std(ddof=1)) if len(sums) > 1 else float("nan")
    return Difference(interval, error)


def detectable_difference(
    standard_error: float, *, confidence: float = CONFIDENCE, power: float = POWER
) -> float:
    """Return the smallest true difference found with probability `power`.

    (z(1 - alpha/2) + z(power)) standard errors: 2.8 of them by default.

    Source: Cohen 1988, "Statistical Power Analysis for the Behavioral Sciences", section 2.4.
    """
    normal = NormalDist()
    return (normal.inv_cdf((1 + confidence) / 2) + normal.inv_cdf(power)) * standard_error


def smallest_visible(
    values: Mapping[str, np.ndarray], units: Sequence[Hashable] | None = None
) -> float:
    """Return the smallest difference that could be found between any two of `values`.

    The worst of all pairs, each (n,) of the same pictures; nan where no pair has two units.
    """
    errors = [
        paired_difference(values[a], values[b], units).standard_error
        for a, b in combinations(values, 2)
    ]
    known = [error for error in errors if not np.isnan(error)]
    return detectable_difference(max(known)) if known else float("nan")


def rank(
    values: Mapping[str, np.ndarray],
    better: Literal["higher", "lower"],
    units: Sequence[Hashable] | None = None,
    *,
    confidence: float = CONFIDENCE,
) -> list[Rank]:
    """Return the ranking of `values`, best first; what cannot be told apart shares no claim.

    The place counts those that are better beyond a tie, so two may share a place without a third
    that ties with both being between them. Pairs are tested at 1 - (1 - confidence) / pairs, so
    that all claims together hold with `confidence` (Bonferroni). Those without values are left out.

    Args:
        values: {name: (n,)}, all of the same pictures in one order.
        better: whether "higher" or "lower" is better.
        units: see `mean_interval`.
        confidence: of all claims together.
    """
    present = {name: row for name, row in values.items() if not np.isnan(row).all()}
    pairs = list(combinations(present, 2))
    strict = 1 - (1 - confidence) / max(1, len(pairs))
    beaten_by = dict.fromkeys(present, 0)
    ties: dict[str, list[str]] = {name: [] for name in present}
    for a, b in pairs:
        difference = paired_difference(present[a], present[b], units, confidence=strict)
        if difference.tie:
            ties[a].append(b)
            ties[b].append(a)
        else:
            first_wins = (difference.interval.mean > 0) == (better == "higher")
            beaten_by[b if first_wins else a] += 1
    sign = -1 if better == "higher" else 1
    ranks = [
        Rank(
            name,
            beaten_by[name] + 1,
            mean_interval(row, units, confidence=confidence),
            tuple(ties[name]),
        )
        for name, row in present.items()
    ]
    return sorted(ranks, key=lambda entry: (entry.place, sign * entry.interval.mean))


def _per_unit(
    values: np.ndarray, units: Sequence[Hashable] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum and the number of values of each unit, nan left out."""
    values = np.asarray(values, dtype=float)
    labels = range(len(values)) if units is None else units
    if len(labels) != len(values):
        raise UsageError(
            f"{len(labels)} units were given for {len(values)} values; give one for each"
        )
    totals: dict[Hashable, list[float]] = {}
    for label, value in zip(labels, values, strict=True):
        if not np.isnan(value):
            totals.setdefault(label, []).append(float(value))
    sums = np.array([sum(members) for members in totals.values()])
    return sums, np.array([len(members) for members in totals.values()])


def _resampled(sums: np.ndarray, counts: np.ndarray, seed: int) -> np.ndarray:
    """Return the means of `RESAMPLES` draws of units with replacement."""
    generator = np.random.default_rng(seed)
    drawn = generator.integers(len(sums), size=(RESAMPLES, len(sums)))
    means: np.ndarray = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return means


def _bca_tails(
    tails: np.ndarray, means: np.ndarray, mean: float, sums: np.ndarray, counts: np.ndarray
) -> np.ndarray:
    """Return the tail probabilities corrected for bias and skewness.

    Source: Efron and Tibshirani 1993, equations 14.10 (tails), 14.14 (bias), 14.15 (acceleration).
    """
    normal = NormalDist()
    # Half of the ties count as below, as scipy does; clipping keeps the quantile finite.
    below = ((means < mean).mean() + (means <= mean).mean()) / 2
    edge = 1 / (2 * len(means))
    bias = normal.inv_cdf(float(np.clip(below, edge, 1 - edge)))
    without_one = (sums.sum() - sums) / (counts.sum() - counts)
    gaps = without_one.mean() - without_one
    spread = float((gaps**2).sum())
    acceleration = float((gaps**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0
    quantiles = np.array([bias + normal.inv_cdf(float(tail)) for tail in tails])
    corrected = bias + quantiles / (1 - acceleration * quantiles)
    return np.array([normal.cdf(float(value)) for value in corrected])
