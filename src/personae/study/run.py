"""Running the pending cells of a study, on this machine or on a cluster.

A killed cell leaves no result; it is marked as failed by whoever started it, and a stopped study
goes on later.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import TypeVar

from personae.core.event import Event, EventLog
from personae.core.lock import alone_in
from personae.errors import StudyError
from personae.study.events import (
    CellFinished,
    CellProgress,
    CellStarted,
    StudyEvent,
    StudyFinished,
    StudyStarted,
)
from personae.study.local_runner import local_runner, usual_jobs
from personae.study.ray_runner import on_ray
from personae.study.runner import Runner
from personae.study.study import Study

logger = logging.getLogger(__name__)

Logged = TypeVar("Logged", bound=Event)


def pick_runner(study: Study, jobs: int | None = None, ray: str | None = None) -> Runner:
    """Return what runs the cells of `study`: this machine, or a cluster.

    Args:
        study: what will be run.
        jobs: cells side by side on this machine; by default as many as gain by it.
        ray: address of a Ray cluster ("auto", "host:port"); None runs them here.

    Raises:
        UsageError: `jobs` is below 1, or Ray is not installed.
        StudyError: there is no cluster at that address.
    """
    if ray is not None:
        return on_ray(ray)
    return local_runner(usual_jobs(study) if jobs is None else jobs)


def run_study(study: Study, runner: Runner, *, retry_failed: bool = False) -> Iterator[StudyEvent]:
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


def _run(study: Study, runner: Runner, retry_failed: bool) -> Iterator[StudyEvent]:
    pending = study.pending(retry_failed=retry_failed)
    for cell in pending:
        if cell.state == "pending" and (why := cell.problem):
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
        seconds = time.monotonic() - begun.get(event.name, started)
        error = "has no result" if event.state == "pending" else event.problem
        finished = CellFinished(event.name, done, len(pending), round(seconds, 1), error)
        yield _logged(log, finished)
    took = round(time.monotonic() - started, 1)
    yield _logged(log, StudyFinished(len(study.cells), len(study.failed()), took))


def _logged(log: EventLog, event: Logged) -> Logged:
    log.append(event)
    return event
