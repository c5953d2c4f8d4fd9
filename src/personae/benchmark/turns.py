"""Processes in memory together that do a training step each in turn, while the others wait."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any, cast

from personae.benchmark.jobs import TURN, Job
from personae.errors import PersonaeError

LAST_WORDS = 400  # letters shown of what a broken process wrote


class WorkerProcess:
    """A process that makes one measurement, stopping wherever the job lets others go on.

    Attributes:
        job: what it measures.
        figures: what it measured by name; None until it has ended.
    """

    def __init__(self, job: Job, cache: Path, complaints: IO[str]) -> None:
        """Start the process.

        Args:
            job: what to measure.
            cache: where the process keeps what it computes once.
            complaints: an empty file for what it writes to its standard error.
        """
        self.job, self._complaints = job, complaints
        self.figures: dict[str, Any] | None = None
        begun = job.model_copy(update={"started": time.monotonic()})
        self._process = subprocess.Popen(
            [sys.executable, "-m", "personae.benchmark.worker", begun.model_dump_json()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            env={**os.environ, "PERSONAE_CACHE": str(cache)},
        )

    def await_turn(self) -> None:
        """Wait until it lets another go on, or has ended.

        Raises:
            PersonaeError: it cannot be measured, or the process broke.
        """
        last = ""
        for line in cast(IO[str], self._process.stdout):
            if line == TURN + "\n":
                return
            last = line
        code = self._process.wait()
        if code or not last:
            self._complaints.seek(0)
            reason = (self._complaints.read().strip().splitlines() or ["it wrote nothing"])[-1]
            raise PersonaeError(
                f"{self.job.title}: its process ended with {code} ({reason[-LAST_WORDS:]})"
            )
        figures: dict[str, Any] = json.loads(last)
        self.figures = figures
        if "error" in figures:
            raise PersonaeError(f"{self.job.title}: {figures['error']}")

    def go_on(self) -> None:
        """Let it do its next step, and wait until it is done.

        Raises:
            PersonaeError: it cannot be measured, or the process broke, if only while it waited.
        """
        with suppress(BrokenPipeError):  # it is gone; waiting for it tells how
            turns = cast(IO[str], self._process.stdin)
            turns.write("\n")
            turns.flush()
        self.await_turn()

    def close(self) -> None:
        """End the process, if it has not ended."""
        self._process.kill()
        self._process.communicate()


def measure_together(jobs: Sequence[Job], cache: Path) -> list[dict[str, Any]]:
    """Make measurements in a process each, which take turns, and return their figures in order.

    Each does its first step before the next process is started.

    Args:
        jobs: what to measure; more than one must fit into memory together.
        cache: where the processes keep what they compute once.

    Raises:
        PersonaeError: one cannot be measured, or its process broke.
    """
    with ExitStack() as stack:
        processes = []
        for job in jobs:
            complaints = stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8"))
            processes.append(WorkerProcess(job, cache, complaints))
            stack.callback(processes[-1].close)
            processes[-1].await_turn()
        while waiting := [process for process in processes if process.figures is None]:
            for process in waiting:
                process.go_on()
    return [process.figures or {} for process in processes]
