"""What a study tells while it runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from personae.core.event import Event


@dataclass(frozen=True, slots=True)
class StudyStarted(Event):
    """The study begins: `pending` of `total` cells have no result yet."""

    kind: ClassVar[str] = "study_started"
    total: int
    pending: int


@dataclass(frozen=True, slots=True)
class CellStarted(Event):
    """A cell was started; `progress` is the file its training writes its events to."""

    kind: ClassVar[str] = "cell_started"
    cell: str
    progress: Path


@dataclass(frozen=True, slots=True)
class CellFinished(Event):
    """A cell has a result; `error` is empty or says in one line why it broke."""

    kind: ClassVar[str] = "cell_finished"
    cell: str
    done: int
    pending: int
    seconds: float
    error: str


@dataclass(frozen=True, slots=True)
class StudyFinished(Event):
    """No cell is pending any more."""

    kind: ClassVar[str] = "study_finished"
    total: int
    failed: int
    seconds: float


@dataclass(frozen=True, slots=True)
class CellProgress(Event):
    """How far the training of a running cell is."""

    kind: ClassVar[str] = "cell_progress"
    cell: str
    step: int
    steps: int


StudyEvent = StudyStarted | CellStarted | CellProgress | CellFinished | StudyFinished
