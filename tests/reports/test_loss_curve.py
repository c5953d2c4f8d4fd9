"""The curve of a run: drawn as it is, told in words, smoothed fairly."""

from __future__ import annotations

from pathlib import Path

import pytest

from personae.reports.loss_curve import LossCurve, in_words, loss_plot, smoothed
from personae.training.events import Step, Validation
from personae.training.run_folder import RunFolder

LOSSES = [(step, 1.0 - step / 200) for step in range(1, 101)]


def test_the_curve_is_read_from_a_run_and_a_step_done_twice_counts_once(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for step, loss in ((1, 0.9), (2, 0.8), (2, 0.7), (3, 0.6)):
        run.log(Step(step, 3, loss, 1e-3, 1.0, 0.1))
    run.log(Validation(3, 0.65, 0.95))
    assert LossCurve.of(run) == LossCurve([(1, 0.9), (2, 0.7), (3, 0.6)], [(3, 0.65)], 0.95)


def test_the_plot_holds_every_part_and_says_what_it_shows() -> None:
    plot = loss_plot(LossCurve(LOSSES, [(50, 0.8), (100, 0.7)], 0.9))
    assert 'aria-label="Smoothed training loss' in plot.svg
    assert plot.svg.count('d="M') >= 3
    assert "below the untouched base" in plot.note


@pytest.mark.parametrize("losses", [[(1, 0.5), (2, 0.5)], [(1, float("nan")), (2, 0.5)]])
def test_a_flat_or_broken_loss_is_drawn(losses: list[tuple[int, float]]) -> None:
    assert "<svg" in loss_plot(LossCurve(losses)).svg


def test_a_single_step_is_no_curve() -> None:
    assert loss_plot(LossCurve([(1, 1.0)])) is None
    assert loss_plot(LossCurve([])) is None


def test_the_words_say_which_way_the_loss_on_held_out_pictures_went() -> None:
    assert "22.2% below" in in_words(LossCurve(LOSSES, [(100, 0.7)], 0.9))
    assert "22.2% above" in in_words(LossCurve(LOSSES, [(100, 1.1)], 0.9))


def test_smoothing_keeps_a_constant_and_weighs_the_start_fairly() -> None:
    assert [loss for _, loss in smoothed([(1, 2.0), (2, 2.0)])] == pytest.approx([2.0, 2.0])
    # (0.9 * 0.1 * 4 + 0.1 * 1) / (0.9 * 0.1 + 0.1)
    assert smoothed([(1, 4.0), (2, 1.0)])[1][1] == pytest.approx(0.46 / 0.19)
