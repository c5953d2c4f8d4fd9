"""A study on a local Ray cluster of two workers: the same results, and a worker that dies."""

from __future__ import annotations

import os
import signal
import threading
import time

import psutil
import pytest

from personae.cell_process import run_cell
from personae.cluster import on_ray, pack, unpack
from personae.execution import CellFinished, run_study
from personae.study import Study
from study_world import build, grid

ray = pytest.importorskip("ray", reason="Ray is not installed; pip install personae[cluster]")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return build(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def cluster():
    """Start a cluster with room for two cells at a time."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()


def cell_processes() -> list[psutil.Process]:
    """Return the running processes of cells that a Ray worker started."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if "personae.cell_process" in line and "personae-cell-" in line[-1]:
            found.append(process)
    return found


def test_a_folder_travels_as_an_archive(character, tmp_path):
    unpack(pack(character), tmp_path / "there")
    names = {path.name: path.read_bytes() for path in character.iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "there").iterdir()} == names


@pytest.mark.usefixtures("cluster")
def test_results_are_those_of_one_machine_even_when_a_worker_dies(world, character, tmp_path):
    study = Study.plan(grid(world, character), tmp_path / "cluster")
    killed: list[int] = []

    def kill_a_worker() -> None:
        """Kill the worker of the first cell that is seen to run."""
        deadline = time.monotonic() + 120
        while not killed and time.monotonic() < deadline:
            for process in cell_processes():
                worker = process.ppid()
                os.kill(worker, signal.SIGKILL)
                killed.append(worker)
                return
            time.sleep(0.02)

    assassin = threading.Thread(target=kill_a_worker)
    assassin.start()
    events = list(run_study(study, on_ray("local")))
    assassin.join()
    assert killed
    finished = [event for event in events if isinstance(event, CellFinished)]
    assert [event.error for event in finished] == [""] * 3
    assert len({event.cell for event in finished}) == 3

    alone = Study.plan(grid(world, character), tmp_path / "alone")
    alone.begin()
    for cell in alone.cells:
        run_cell(cell)
    for there, here in zip(study.cells, alone.cells, strict=True):
        theirs, mine = there.result(), here.result()
        assert theirs["scores"] == mine["scores"]
        assert theirs["character"] == mine["character"]
        assert theirs.get("content_hash") == mine.get("content_hash")
        assert all((there.pictures / each["file"]).is_file() for each in theirs["pictures"])
