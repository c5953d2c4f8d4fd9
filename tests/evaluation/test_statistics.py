"""Intervals against scipy, and rankings of which the outcome is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap

from personae.errors import UsageError
from personae.evaluation.statistics import (
    detectable_difference,
    mean_interval,
    paired_difference,
    rank,
    smallest_visible,
)


def draws(count: int, mean: float = 0.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).gamma(2.0, 0.1, count) + mean


@pytest.mark.parametrize("method", ["bca", "percentile"])
@pytest.mark.parametrize("count", [8, 40])
def test_intervals_are_scipys(method, count):
    values = draws(count)
    ours = mean_interval(values, method=method)
    theirs = bootstrap(
        (values,), np.mean, method=method, n_resamples=20000, rng=np.random.default_rng(1)
    ).confidence_interval
    # Two bootstraps differ by their own draws: about 2 per cent of the width each.
    width = theirs.high - theirs.low
    assert ours.mean == pytest.approx(values.mean())
    assert ours.low == pytest.approx(theirs.low, abs=0.06 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.06 * width)


def test_paired_intervals_are_scipys():
    first, second = draws(30), draws(30, seed=1)
    ours = paired_difference(first, second)
    theirs = bootstrap(
        (first, second),
        lambda a, b, axis: (a - b).mean(axis=axis),
        paired=True,
        vectorized=True,
        method="BCa",
        n_resamples=20000,
        rng=np.random.default_rng(1),
    )
    width = theirs.confidence_interval.high - theirs.confidence_interval.low
    low, high = theirs.confidence_interval
    assert ours.interval.low == pytest.approx(low, abs=0.06 * width)
    assert ours.interval.high == pytest.approx(high, abs=0.06 * width)
    assert ours.standard_error == pytest.approx(theirs.standard_error, rel=0.05)


def test_nineteen_of_twenty_intervals_cover_the_true_mean():
    covered = 0
    for seed in range(200):
        interval = mean_interval(draws(24, seed=seed), seed=seed)
        covered += interval.low <= 0.2 <= interval.high  # the mean of gamma(2, 0.1)
    assert 178 <= covered <= 198


def test_values_of_one_unit_count_as_one():
    values = draws(10)
    alone = mean_interval(values)
    doubled = mean_interval(np.repeat(values, 5), np.repeat(np.arange(10), 5))
    assert (doubled.low, doubled.high) == pytest.approx((alone.low, alone.high))
    assert doubled.units == 10
    pretending = mean_interval(np.repeat(values, 5))
    assert pretending.high - pretending.low < 0.6 * (alone.high - alone.low)


def test_nan_is_left_out():
    values = np.array([0.1, np.nan, 0.3, 0.2])
    assert mean_interval(values) == mean_interval(values[[0, 2, 3]])
    assert paired_difference(values, np.zeros(4)).interval.units == 3
    assert np.isnan(mean_interval(np.array([np.nan])).mean)
    assert mean_interval(np.array([])).units == 0


def test_the_same_values_give_the_same_interval_each_time():
    assert mean_interval(draws(12)) == mean_interval(draws(12))


def test_values_that_do_not_vary_have_no_width():
    interval = mean_interval(np.full(6, 0.25))
    assert (interval.low, interval.mean, interval.high) == (0.25, 0.25, 0.25)


def test_identical_sides_tie_and_a_constant_lead_does_not():
    values = draws(10)
    assert paired_difference(values, values).tie
    lead = paired_difference(values + 0.125, values)
    assert not lead.tie
    assert lead.interval.mean == pytest.approx(0.125)


def test_pairing_sees_what_two_separate_intervals_do_not():
    hard_and_easy = np.linspace(0, 1, 20)
    better = hard_and_easy + 0.02 + draws(20) * 0.01
    apart = mean_interval(hard_and_easy), mean_interval(better)
    assert apart[0].high > apart[1].low
    assert not paired_difference(better, hard_and_easy).tie


def test_a_single_unit_tells_nothing():
    assert paired_difference(np.array([0.9]), np.array([0.1])).tie
    assert paired_difference(np.array([0.9, 0.8]), np.array([0.1, 0.1]), ["a", "a"]).tie


def test_different_pictures_cannot_be_paired():
    with pytest.raises(UsageError, match="there are 3 and 2"):
        paired_difference(np.zeros(3), np.zeros(2))
    with pytest.raises(UsageError, match="2 units were given for 3 values"):
        mean_interval(np.zeros(3), ["a", "b"])


def test_confidence_must_be_a_probability():
    with pytest.raises(UsageError, match="confidence is 95"):
        mean_interval(np.zeros(3), confidence=95)


def test_the_detectable_difference_is_found_as_often_as_it_says():
    assert detectable_difference(1.0) == pytest.approx(2.8016, abs=1e-4)
    generator = np.random.default_rng(0)
    size, noise = 30, 0.1
    effect = detectable_difference(noise / np.sqrt(size))
    found = 0
    for _ in range(150):
        gap = generator.normal(effect, noise, size)
        found += not paired_difference(gap, np.zeros(size)).tie
    assert 0.7 <= found / 150 <= 0.92


def test_the_smallest_visible_difference_is_that_of_the_noisiest_pair():
    steady = np.zeros(20)
    values = {"a": steady, "b": steady + 0.5, "c": np.random.default_rng(0).normal(0, 1, 20)}
    noisiest = paired_difference(values["a"], values["c"]).standard_error
    assert smallest_visible(values) == pytest.approx(detectable_difference(noisiest))
    assert np.isnan(smallest_visible({"a": steady}))


@pytest.mark.parametrize(("better", "places"), [("higher", [1, 2, 2, 4]), ("lower", [4, 2, 2, 1])])
def test_a_known_order_is_ranked_with_its_tie(better, places):
    noise = np.random.default_rng(0).normal(0, 0.02, (4, 24))
    values = {
        "best": 0.9 + noise[0],
        "second": 0.6 + noise[1],
        "as good": 0.6 + noise[2],
        "worst": 0.2 + noise[3],
    }
    ranks = {entry.name: entry for entry in rank(values, better)}
    assert [ranks[name].place for name in values] == places
    assert ranks["second"].ties == ("as good",)
    assert ranks["best"].ties == ()
    order = [entry.name for entry in rank(values, better)]
    assert order[0] == ("best" if better == "higher" else "worst")


def test_one_alone_is_first_and_one_without_values_is_not_ranked():
    ranks = rank({"only": draws(5), "none": np.full(5, np.nan)}, "higher")
    assert [(entry.name, entry.place, entry.ties) for entry in ranks] == [("only", 1, ())]
