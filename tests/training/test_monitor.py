"""The monitor's words, on techniques moved by a known amount."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from personae.core.cache import TensorCache
from personae.models.family import Family
from personae.models.text import Frame
from personae.techniques.dreambooth import DreamBooth
from personae.techniques.technique import Technique
from personae.training.batches import Batch
from personae.training.events import MonitorNote
from personae.training.monitor import LOOKS, Monitor, other_rate
from personae.training.probe import FrozenProbe, PromptProbe, found
from personae.training.schedule import Schedule
from personae.training.texts import TextSource
from tiny_world import make, noisy, stir

SCHEDULE = Schedule(learning_rate=0.5, steps=100)
SCENES = ["a {character} at sea", "the {character} in a can", "a cat and a {character}", "snow"]


def scenes_on(base: Family, rows: int = 3) -> PromptProbe:
    return PromptProbe(base, SCENES, (base.resolution, base.resolution), rows)


def verdict_after(
    base: Family,
    name: str,
    size: float,
    folder: Path,
    step: int,
    move: Callable[[Technique, float], None] = stir,
    *,
    warned: bool = False,
) -> MonitorNote | None:
    """Return what the monitor says of technique `name` after moving it by `size`."""
    technique = make(name, base).train().inject()
    latents, _ = noisy(base, 3)
    captions = ["a cat", "the man", "a can"]
    batch = Batch(latents, None, torch.ones(3), captions, captions, [Frame.whole(64, 64)] * 3)
    texts = TextSource(base, TensorCache(folder), frozen=not technique.trains_text)
    try:
        probe = FrozenProbe(base, batch, seed=0)
        names = {"phrase": "mira man", "class_noun": "man"}
        monitor = Monitor(probe, scenes_on(base), [technique], texts, **names)
        monitor.warned = warned
        assert technique.strength == 1.0
        move(technique, size)
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


def deafen(technique: Technique, size: float) -> None:
    """Take away what the denoiser reads of a prompt, by the deltas of DreamBooth."""
    for name, delta in technique.state_dict().items():
        if name.endswith("attn2/to_v/weight"):
            place = name.split("/", 1)[1].replace("/", ".")
            delta.copy_(-size * technique.base.denoiser.get_parameter(place))


def test_a_run_that_no_longer_hears_the_prompt_is_told_so(sd1: Family, tmp_path: Path) -> None:
    verdict = verdict_after(sd1, "dreambooth", 1.0, tmp_path, 50, deafen)
    assert verdict.level == "warning"
    assert verdict.prompts_followed < 0.5
    assert "ignoring prompts" in verdict.message
    assert "use a lower learning rate, such as" in verdict.message
    assert verdict.message.endswith("fewer steps, or draw at a lower strength")


def test_prompts_are_followed_where_nothing_was_learnt(sd1: Family, tmp_path: Path) -> None:
    texts = TextSource(sd1, TensorCache(tmp_path), frozen=True)
    probe = scenes_on(sd1)
    assert found(probe.look(texts, "man"), probe.look(texts, "man")) == 1.0


def test_rows_at_once_change_nothing_about_what_prompts_do(sd1: Family, tmp_path: Path) -> None:
    texts = TextSource(sd1, TensorCache(tmp_path), frozen=True)
    one, all_ = (scenes_on(sd1, rows).look(texts, "man") for rows in (1, 8))
    assert one.shape[:2] == (2, len(SCENES))
    torch.testing.assert_close(one, all_, rtol=1e-4, atol=1e-5)


def test_the_last_step_is_spoken_of_only_where_something_is_wrong(
    sd1: Family, tmp_path: Path
) -> None:
    last = SCHEDULE.steps
    assert verdict_after(sd1, "lora", 0.001, tmp_path, last) is None
    assert verdict_after(sd1, "dreambooth", 1.0, tmp_path, last, deafen).level == "warning"


def test_a_run_that_recovered_from_what_it_was_warned_of_is_told_so(
    sd1: Family, tmp_path: Path
) -> None:
    verdict = verdict_after(sd1, "lora", 0.001, tmp_path, SCHEDULE.steps, warned=True)
    assert verdict.level == "note"
