"""Running cells on this machine, each in a process of its own.

A process of its own makes peak memory honest and keeps a crash to its cell.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from personae.core.devices import HOST, pick_device
from personae.core.event import Event
from personae.core.memory import free_bytes
from personae.errors import UsageError
from personae.models.weights.sources import local_folder
from personae.study.budget import Budget
from personae.study.cell import Cell
from personae.study.events import CellProgress, CellStarted
from personae.study.runner import Runner, fail_without_result
from personae.study.study import Study
from personae.training.events import Step

PAUSE_SECONDS = 0.1
PROGRESS_SECONDS = 1.0
TAIL_BYTES = 4096
SMALL_BASE = 2**28  # bytes of weights up to which a step gains nothing from a second thread
CELL_BYTES = 2**31  # memory of a cell on such a base: 1.3 GiB measured for DreamBooth on toon


def local_runner(jobs: int = 1) -> Runner:
    """Return a runner of up to `jobs` cells at a time on this machine.

    Raises:
        UsageError: `jobs` is below 1.
    """
    if jobs < 1:
        raise UsageError(f"jobs is {jobs}; it must be 1 or more")

    def run(cells: Sequence[Cell]) -> Iterator[CellStarted | CellProgress | Cell]:
        waiting = list(cells)
        running: dict[Path, tuple[Cell, subprocess.Popen[bytes]]] = {}
        told = time.monotonic()
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    cell = waiting.pop(0)
                    running[cell.folder] = (cell, start(cell, jobs))
                    yield CellStarted(cell.name, cell.training / "events.jsonl")
                ended = [key for key, (_, process) in running.items() if process.poll() is not None]
                for key in ended:
                    cell, process = running.pop(key)
                    fail_without_result(cell, process.returncode)
                    yield cell
                if not ended:
                    time.sleep(PAUSE_SECONDS)
                if time.monotonic() - told > PROGRESS_SECONDS:
                    told = time.monotonic()
                    yield from filter(None, (progress(cell) for cell, _ in running.values()))
        finally:
            for _, process in running.values():
                process.terminate()
            for _, process in running.values():
                process.wait()

    return run


def usual_jobs(study: Study) -> int:
    """Return how many cells of `study` to run side by side where nobody says it.

    The passes of a small base are too short to share between threads: on two cores a step on toon
    takes as long with two threads as with one (docs/measurements/techniques.md), so two cells of
    one thread each take half the time. A large base has the machine for itself, and so has a
    budget of seconds.
    """
    bases = {str(cell.spec.run.base) for cell in study.cells}
    on_host = all(pick_device(cell.spec.run.device) == HOST for cell in study.cells)
    by_clock = Budget.parse(study.settings.budget).kind == "seconds"
    if by_clock or not on_host or not all(0 < _stored(base) <= SMALL_BASE for base in bases):
        return 1
    cores = len(os.sched_getaffinity(0)) if _has_affinity() else os.cpu_count() or 1
    room = (free_bytes(HOST) or 0) // CELL_BYTES
    return max(1, min(cores, room, len(study.cells)))


def _stored(base: str) -> int:
    """Return the bytes of a base's weight files, 0 where they are not in a folder here."""
    return sum(file.stat().st_size for file in local_folder(base).rglob("*.safetensors"))


def progress(cell: Cell) -> CellProgress | None:
    """Return how far a cell's training is, or None if it does not train now."""
    try:
        with (cell.training / "events.jsonl").open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:  # not begun
        return None
    event = Event.from_json(lines[-1]) if lines else None  # None while a line is being written
    return CellProgress(cell.name, event.step, event.steps) if isinstance(event, Step) else None


def start(cell: Cell, jobs: int = 1) -> subprocess.Popen[bytes]:
    """Start the process of a cell; what it writes goes to `log.txt` in the cell's folder."""
    threads = max(1, len(os.sched_getaffinity(0)) // jobs) if _has_affinity() else None
    limits = {"OMP_NUM_THREADS": str(threads)} if threads and jobs > 1 else {}
    with (cell.folder / "log.txt").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "personae.study.worker", str(cell.folder), str(jobs)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **limits},
        )


def _has_affinity() -> bool:
    return hasattr(os, "sched_getaffinity")
