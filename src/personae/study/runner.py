"""Running the pending cells of a study, each in a process of its own.

A process of its own makes peak memory honest and keeps a crash to its cell. A killed cell leaves
no result; it is marked as failed by whoever started it, and a stopped study goes on later.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from personae.core.devices import HOST, pick_device
from personae.core.event import Event, EventLog
from personae.core.lock import alone_in
from personae.core.memory import free_bytes
from personae.errors import StudyError, UsageError
from personae.models.weights.sources import local_folder
from personae.study.budget import Budget
from personae.study.cell import Cell
from personae.study.events import (
    CellFinished,
    CellProgress,
    CellStarted,
    Happening,
    StudyFinished,
    StudyStarted,
)
from personae.study.study import Study
from personae.training.events import Step

logger = logging.getLogger(__name__)
PAUSE_SECONDS = 0.1
PROGRESS_SECONDS = 1.0
TAIL_BYTES = 4096
SMALL_BASE = 2**28  # bytes of weights up to which a step gains nothing from a second thread
CELL_BYTES = 2**31  # memory of a cell on such a base: 1.3 GiB measured for DreamBooth on toon


Runner = Callable[[Sequence[Cell]], Iterator[CellStarted | CellProgress | Cell]]
"""Runs cells, yielding each when it starts and, as a `Cell`, when it has a result."""


Logged = TypeVar("Logged", bound=Event)


def run_study(study: Study, runner: Runner, *, retry_failed: bool = False) -> Iterator[Happening]:
    """Run what has no result yet and yield what happens.

    Args:
        study: what to run.
        runner: `local_runner(jobs)` on this machine, or a cluster's.
        retry_failed: also run again the cells that broke.

    Raises:
        StudyError: another process runs this study now.
    """
    study.begin()
    with alone_in(study.folder, "study", StudyError):
        yield from _run(study, runner, retry_failed)


def _run(study: Study, runner: Runner, retry_failed: bool) -> Iterator[Happening]:
    pending = study.pending(retry_failed=retry_failed)
    for cell in pending:
        if why := cell.unusable:
            logger.warning("%s: is run again, as its result cannot be used: %s", cell.name, why)
        cell.result_file.unlink(missing_ok=True)
    started = time.monotonic()
    log = EventLog(study.folder / "events.jsonl")
    yield _logged(log, StudyStarted(len(study.cells), len(pending)))
    begun: dict[str, float] = {}
    done = 0
    for event in runner(pending):
        if isinstance(event, CellStarted):
            begun[event.cell] = time.monotonic()
            yield _logged(log, event)
            continue
        if isinstance(event, CellProgress):
            yield event  # not logged: the run's own events say more
            continue
        done += 1
        result = event.result()
        seconds = time.monotonic() - begun.get(event.name, started)
        error = "has no result" if result is None else getattr(result, "error", "")
        finished = CellFinished(event.name, done, len(pending), round(seconds, 1), error)
        yield _logged(log, finished)
    took = round(time.monotonic() - started, 1)
    yield _logged(log, StudyFinished(len(study.cells), len(study.failed()), took))


def _logged(log: EventLog, event: Logged) -> Logged:
    log.append(event)
    return event


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
                    settle(cell, process.returncode)
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


def settle(cell: Cell, code: int) -> None:
    """Give a cell whose process ended without a result the reason as its result."""
    if cell.result() is not None:
        return
    if code < 0:
        name = signal.Signals(-code).name
        why = " (the system kills processes that take too much memory)" if code == -9 else ""
        cell.fail(f"its process was killed by {name}{why}; run the study again with --retry-failed")
    else:
        cell.fail(f"its process ended with code {code} and no result; see {cell.folder}/log.txt")
