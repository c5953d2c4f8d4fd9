"""The monitor's words, on techniques moved by a known amount."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from personae.batches import Batch, TextSource
from personae.caches import TensorCache
from personae.events import Verdict
from personae.families.base import Family
from personae.monitor import LOOKS, FrozenProbe, Monitor
from personae.settings import Schedule
from tiny_world import make, noisy, stir

SCHEDULE = Schedule(learning_rate=0.5)


def verdict_after(base: Family, name: str, size: float, folder: Path, step: int) -> Verdict | None:
    """Return what the monitor says of technique `name` after moving it by `size`."""
    technique = make(name, base).train().inject()
    latents, _ = noisy(base, 3)
    captions = ["a cat", "the man", "a can"]
    batch = Batch(latents, None, torch.ones(3), captions, captions)
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
    assert "use a lower learning rate, such as 1.0e-01 (now 5.0e-01)" in verdict.message
    assert verdict.loss_gap < -0.25


@pytest.mark.parametrize("step", [25, 50])
def test_a_still_run_is_told_to_raise_its_rate(sd1: Family, tmp_path: Path, step: int) -> None:
    verdict = verdict_after(sd1, "lora", 0.0, tmp_path, step)
    assert verdict.level == "warning"
    assert "not learning: the output changed by only 0.00%" in verdict.message
    assert "use a higher learning rate, such as 2.5e+00 (now 5.0e-01)" in verdict.message
    assert (verdict.loss_gap, verdict.output_change) == (0.0, 0.0)


def test_a_run_in_its_warm_up_is_not_blamed_for_being_still(sd1: Family, tmp_path: Path) -> None:
    assert verdict_after(sd1, "lora", 0.0, tmp_path, 10).level == "note"


def test_a_run_that_moves_is_told_how_far(sd1: Family, tmp_path: Path) -> None:
    verdict = verdict_after(sd1, "lora", 0.05, tmp_path, 50)
    assert verdict.level == "note"
    assert f"the output changed by {verdict.output_change:.1%}" in verdict.message
    assert verdict.output_change > 1e-3


def test_it_looks_within_the_first_fifty_steps_and_not_after(sd1: Family, tmp_path: Path) -> None:
    assert max(LOOKS) <= 50
    for step in (1, 9, 11, 51, 500):
        assert verdict_after(sd1, "lora", 0.0, tmp_path, step) is None
