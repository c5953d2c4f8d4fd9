"""The monitor's words, on techniques moved by a known amount."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from personae.core.cache import TensorCache
from personae.models.family import Family
from personae.models.text import Frame
from personae.techniques.dreambooth import DreamBooth
from personae.training.batches import Batch
from personae.training.events import MonitorNote
from personae.training.monitor import LOOKS, Monitor, other_rate
from personae.training.probe import FrozenProbe
from personae.training.schedule import Schedule
from personae.training.texts import TextSource
from tiny_world import make, noisy, stir

SCHEDULE = Schedule(learning_rate=0.5)


def verdict_after(
    base: Family, name: str, size: float, folder: Path, step: int
) -> MonitorNote | None:
    """Return what the monitor says of technique `name` after moving it by `size`."""
    technique = make(name, base).train().inject()
    latents, _ = noisy(base, 3)
    captions = ["a cat", "the man", "a can"]
    batch = Batch(latents, None, torch.ones(3), captions, captions, [Frame.whole(64, 64)] * 3)
    texts = TextSource(base, TensorCache(folder), frozen=not technique.trains_text)
    try:
        monitor = Monitor(FrozenProbe(base, batch, seed=0), [technique], texts)
        assert technique.strength == 1.0
        stir(technique, size)
        verdict = monitor.look(step, SCHEDULE)
        assert technique.training
        return verdict
    finally:
        technique.eject()


def test_a_breaking_run_is_told_to_lower_its_rate(sd1: Family, tmp_path: Path) -> None:
    verdict = verdict_after(sd1, "dreambooth", 1.0, tmp_path, 10)
    assert verdict.level == "warning"
    assert verdict.message.startswith("breaking: the loss on frozen noise is ")
    usual = DreamBooth.recommended.learning_rate
    assert f"use a lower learning rate, such as {usual:.1e} (now 5.0e-01)" in verdict.message
    assert verdict.loss_gap < -0.25


@pytest.mark.parametrize("step", [25, 50])
def test_a_still_run_is_told_to_raise_its_rate(sd1: Family, tmp_path: Path, step: int) -> None:
    verdict = verdict_after(sd1, "lora", 0.0, tmp_path, step)
    assert verdict.level == "warning"
    assert "not learning: the output changed by only 0.00%" in verdict.message
    assert "use a higher learning rate, such as 2.5e+00 (now 5.0e-01)" in verdict.message
    assert (verdict.loss_gap, verdict.output_change) == (0.0, 0.0)


def test_a_run_in_its_warm_up_is_neither_blamed_nor_praised(sd1: Family, tmp_path: Path) -> None:
    verdict = verdict_after(sd1, "lora", 0.0, tmp_path, 10)
    assert verdict.level == "note"
    assert verdict.message == "warming up: the output changed by only 0.00% so far"


@pytest.mark.parametrize(
    ("now", "factor", "rate"),
    [(1e-9, 5, 1e-4), (1e-4, 5, 5e-4), (10.0, 1 / 5, 1e-4), (1e-4, 1 / 5, 2e-5)],
)
def test_the_rate_to_try_is_the_usual_one_where_that_is_far(
    now: float, factor: float, rate: float
) -> None:
    assert other_rate(now, usual=1e-4, factor=factor) == pytest.approx(rate)


def test_a_run_that_moves_away_is_not_said_to_learn(sd1: Family, tmp_path: Path) -> None:
    verdicts = [
        verdict_after(sd1, "dreambooth", size, tmp_path, 10) for size in (0.01, 0.02, 0.04, 0.08)
    ]
    worse = [each for each in verdicts if -0.25 < each.loss_gap < 0]
    assert worse, [each.loss_gap for each in verdicts]
    assert all(each.message.startswith("moving, not yet for the better: ") for each in worse)


def test_a_run_that_moves_is_told_how_far(sd1: Family, tmp_path: Path) -> None:
    verdict = verdict_after(sd1, "lora", 0.05, tmp_path, 50)
    assert verdict.level == "note"
    assert f"the output changed by {verdict.output_change:.1%}" in verdict.message
    assert verdict.output_change > 1e-3


def test_it_looks_within_the_first_fifty_steps_and_not_after(sd1: Family, tmp_path: Path) -> None:
    assert max(LOOKS) <= 50
    for step in (1, 9, 11, 51, 500):
        assert verdict_after(sd1, "lora", 0.0, tmp_path, step) is None
