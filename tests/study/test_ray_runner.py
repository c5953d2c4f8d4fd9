"""A study on a local Ray cluster of two workers: the same results, and a worker that dies."""

from __future__ import annotations

import threading
import time

import psutil
import pytest

from personae.study.events import CellFinished
from personae.study.ray_runner import gpus_of, on_ray
from personae.study.ray_worker import pack, unpack
from personae.study.run import run_study
from personae.study.study import Study
from personae.study.worker import run_cell
from study_world import build, grid

ray = pytest.importorskip("ray", reason="Ray is not installed; pip install personae[cluster]")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return build(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def cluster():
    """Start a cluster of two processors that says it has a GPU, which cells take in turn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")
        patch.setenv("PERSONAE_ACCELERATION", "none")  # workers have the environment of this start
        told = {"num_cpus": 2, "num_gpus": 1}
        ray.init(**told, include_dashboard=False, log_to_driver=False, logging_level="error")
        yield
        ray.shutdown()


def busy_workers() -> list[psutil.Process]:
    """Return the workers of this test's own cluster that have started the process of a cell."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "personae.study.worker" in process.cmdline():
                found.append(process.parent())
        except psutil.NoSuchProcess:  # ended while we looked
            continue
    return [worker for worker in found if worker and "ray::" in " ".join(worker.cmdline())]


def test_a_folder_travels_as_an_archive(character, tmp_path):
    unpack(pack(character, "mira"), tmp_path)
    names = {path.name: path.read_bytes() for path in character.iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "mira").iterdir()} == names


def test_a_cell_reserves_a_gpu_only_where_there_is_one_and_it_would_use_it(
    world, character, tmp_path
):
    values = grid(world, character, references=False)
    (anywhere,) = Study.plan({**values, "device": "auto"}, tmp_path / "any").cells
    (here,) = Study.plan({**values, "device": "cpu"}, tmp_path / "host").cells
    assert [gpus_of(anywhere, there) for there in (0, 1, 4)] == [0, 1, 1]
    assert [gpus_of(here, there) for there in (0, 4)] == [0, 0]


@pytest.mark.usefixtures("cluster")
def test_results_are_those_of_one_machine_even_when_a_worker_dies(world, character, tmp_path):
    values = grid(world, character, seed=[0, 1], references=False, device="auto")
    study = Study.plan(values, tmp_path / "cluster")
    killed: list[int] = []
    reserved: list[str] = []
    over = threading.Event()

    def kill_a_worker() -> None:
        """Kill the worker of the first cell that is seen to run."""
        while not killed and not over.is_set():
            for worker in busy_workers()[:1]:
                reserved.append(worker.children()[0].environ().get("CUDA_VISIBLE_DEVICES", ""))
                worker.kill()
                killed.append(worker.pid)
            time.sleep(0.02)

    assassin = threading.Thread(target=kill_a_worker)
    assassin.start()
    events = list(run_study(study, on_ray("local")))
    over.set()
    assassin.join()
    assert killed
    assert set(reserved) == {"0"}
    finished = [event for event in events if isinstance(event, CellFinished)]
    assert [event.error for event in finished] == [""] * 2
    assert len({event.cell for event in finished}) == 2

    alone = Study.plan(values, tmp_path / "alone")
    alone.begin()
    for cell in alone.cells:
        run_cell(cell)
    for there, here in zip(study.cells, alone.cells, strict=True):
        theirs, mine = there.result(), here.result()
        assert theirs.scores == mine.scores
        assert theirs.character == mine.character
        assert theirs.content_hash == mine.content_hash
        assert all((there.pictures / each.file).is_file() for each in theirs.pictures)
