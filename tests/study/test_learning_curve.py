"""The learning curve of a run, from its events."""

from __future__ import annotations

from pathlib import Path

from personae.study.learning_curve import POINTS, learning_curve
from personae.training.events import MonitorNote, Step
from personae.training.run_folder import RunFolder


def test_the_curve_is_thinned_and_holds_what_the_monitor_warned_of(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for step in range(1, 121):
        folder.log(Step(step, 120, step / 10, 1e-3, 1.0, 0.1))
        if step in (50, 60):
            folder.log(MonitorNote(step, "warning", f"breaking at {step}", -0.3, 0.2, 1.0))
    curve = learning_curve(folder)
    assert len(curve.loss) == POINTS
    assert [(each.step, each.message) for each in curve.warnings] == [(60, "breaking at 60")]
