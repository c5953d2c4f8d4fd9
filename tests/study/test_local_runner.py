"""Cells of a study on this machine: how many at once, each in its own process, killed."""

from __future__ import annotations

import json
import os
import signal
import sys
import time

import pytest

from personae.study.cell import Cell
from personae.study.comparison.comparison import Comparison
from personae.study.events import CellFinished
from personae.study.local_runner import local_runner, start, usual_jobs
from personae.study.run import run_study
from personae.study.runner import fail_without_result
from personae.study.study import Study
from study_world import build, grid


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return build(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cells-cache")


@pytest.fixture(autouse=True)
def _shared_untouched(shared_cache, monkeypatch):
    """Let the tests of this file share what the untouched base draws."""
    monkeypatch.setenv("PERSONAE_CACHE", str(shared_cache))


def cell_of(study: Study, row: str) -> Cell:
    study.begin()
    return next(cell for cell in study.cells if cell.spec.row == row)


def test_a_study_runs_its_cells_side_by_side_in_processes_of_their_own(world, character, tmp_path):
    """Two cells; `compare` runs one of each kind in the same way, in tests/cli."""
    study = Study.plan(grid(world, character, seed=[0, 1], references=False), tmp_path)
    events = list(run_study(study, local_runner(2)))
    finished = [event for event in events if isinstance(event, CellFinished)]
    assert [event.error for event in finished] == [""] * 2
    assert study.pending() == []
    assert Comparison.of(study).unusable == {}


def test_a_killed_cell_is_told_and_goes_on_where_it_was(world, character, tmp_path):
    values = grid(world, character, budget="steps=400", checkpoint_every=1)
    cell = cell_of(Study.plan(values, tmp_path), "lora")
    process = start(cell)
    log = cell.training / "events.jsonl"
    deadline = time.monotonic() + 120
    while '"checkpoint"' not in (log.read_text() if log.is_file() else ""):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    fail_without_result(cell, process.wait())
    assert "killed by SIGKILL" in cell.result().error
    assert "--retry-failed" in cell.result().error
    steps = [json.loads(x)["step"] for x in log.read_text().splitlines() if '"step"' in x]
    assert 0 < max(steps) < 400


def test_cells_of_a_small_base_share_the_cores_of_this_machine(world, character, tmp_path):
    study = Study.plan(grid(world, character), tmp_path)
    cores = len(os.sched_getaffinity(0))
    assert usual_jobs(study) == min(cores, len(study.cells))


@pytest.mark.parametrize("change", [{"base": "owner/name"}, {"budget": "seconds=5"}])
def test_cells_run_one_by_one_on_a_base_not_here_and_by_the_clock(
    world, character, tmp_path, change
):
    assert usual_jobs(Study.plan(grid(world, character, **change), tmp_path)) == 1


def test_cells_run_one_by_one_on_a_base_that_needs_all_threads(
    world, character, tmp_path, monkeypatch
):
    monkeypatch.setattr(sys.modules[usual_jobs.__module__], "SMALL_BASE", 1000)
    assert usual_jobs(Study.plan(grid(world, character), tmp_path)) == 1
