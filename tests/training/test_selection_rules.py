"""Which checkpoint is kept and when training stops, on made-up curves."""

from __future__ import annotations

import numpy as np
import pytest

from personae.errors import TrainingError
from personae.training.selection_rules import Bounds, ScoredCheckpoint, choose, gained, stop_reason

NOISE = np.random.default_rng(0).normal(0, 0.03, (10, 24))


def checkpoint(step: int, likeness: float, agreement: float = 0.3, **rest) -> ScoredCheckpoint:
    """Return a checkpoint whose pictures vary around the given means."""
    return ScoredCheckpoint(
        step, likeness + NOISE[step % 10], agreement + NOISE[(step + 5) % 10] / 10, **rest
    )


CURVE = [
    checkpoint(1, 0.30, 0.34),
    checkpoint(2, 0.55, 0.33),
    checkpoint(3, 0.70, 0.30),
    checkpoint(4, 0.705, 0.27),
    checkpoint(5, 0.70, 0.22),
]


def test_most_flexible_agrees_best_among_those_as_like_as_the_best():
    choice = choose(CURVE)
    assert choice.best in (3, 4, 5)
    assert choice.most_flexible == 3
    assert choice.last == 5
    assert "within its noise" in choice.reason


def test_a_clear_winner_is_best_and_most_flexible():
    choice = choose([checkpoint(1, 0.3, 0.4), checkpoint(2, 0.8, 0.2), checkpoint(3, 0.5, 0.3)])
    assert (choice.best, choice.most_flexible, choice.last) == (2, 2, 3)


def test_the_earlier_of_two_equal_checkpoints_is_kept():
    same = np.full(8, 0.5)
    choice = choose([ScoredCheckpoint(step, same, same) for step in (30, 10, 20)])
    assert (choice.best, choice.most_flexible, choice.last) == (10, 10, 30)


@pytest.mark.parametrize("fault", [{"drift": 0.4}, {"copies": 0.5}])
def test_a_checkpoint_beyond_a_bound_is_not_the_best(fault):
    choice = choose([checkpoint(1, 0.6, drift=0.1, copies=0.0), checkpoint(2, 0.9, **fault)])
    assert choice.best == choice.most_flexible == 1
    assert choice.last == 2
    assert "1 passed the bounds" in choice.reason


def test_if_all_pass_a_bound_the_best_is_still_named_and_the_reason_says_so():
    choice = choose([checkpoint(1, 0.6, drift=0.5), checkpoint(2, 0.9, drift=0.6)])
    assert choice.best == 2
    assert "every checkpoint passes the bounds" in choice.reason


def test_without_a_likeness_there_is_nothing_to_choose_by():
    blind = ScoredCheckpoint(1, np.full(4, np.nan), np.full(4, 0.3))
    with pytest.raises(TrainingError, match="hold pictures out"):
        choose([blind])
    with pytest.raises(TrainingError, match="no checkpoint"):
        choose([])


def test_a_gain_counts_only_beyond_the_noise():
    assert gained(CURVE[0], CURVE[1])
    assert not gained(CURVE[1], CURVE[0])
    assert not gained(CURVE[2], CURVE[3])


def test_pictures_of_one_shot_are_one_observation():
    shots = tuple(f"shot{i // 12}" for i in range(24))
    rise = np.r_[np.full(12, 0.3), np.full(12, -0.02)] + 0.05
    before = ScoredCheckpoint(1, np.full(24, 0.5), np.zeros(24))
    apart = ScoredCheckpoint(2, 0.5 + rise, np.zeros(24))
    together = ScoredCheckpoint(
        2, 0.5 + rise + np.r_[np.zeros(12), np.full(12, -0.1)], np.zeros(24), shots
    )
    assert gained(before, apart)
    assert not gained(before, together)


def test_training_goes_on_while_it_gains():
    assert all(stop_reason(CURVE[:count]) is None for count in range(5))


def test_training_stops_after_two_checkpoints_without_a_gain():
    reason = stop_reason(CURVE)
    assert "has not gained beyond the noise since step 3" in reason
    assert stop_reason(CURVE, patience=3) is None


@pytest.mark.parametrize(
    ("fault", "words"),
    [({"drift": 0.31}, "drift is 0.310, above 0.3"), ({"copies": 0.5}, "50% of the pictures copy")],
)
def test_training_stops_at_once_beyond_a_bound(fault, words):
    scored = [CURVE[0], checkpoint(2, 0.9, **fault)]
    assert words in stop_reason(scored)
    assert stop_reason(scored, Bounds(drift=0.5, copies=0.9)) is None


def test_the_most_flexible_checkpoint_is_the_one_that_follows_prompts() -> None:
    """Raw agreement hardly tells a run that draws one picture for all prompts from another."""
    deaf = checkpoint(1, 0.5, agreement=0.32, following=np.full(10, 0.01))
    heard = checkpoint(2, 0.5, agreement=0.3, following=np.full(10, 0.2))
    assert choose([deaf, heard]).most_flexible == 2
