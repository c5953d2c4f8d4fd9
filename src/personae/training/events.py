"""What a run tells: typed events, written as one JSON line each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from personae.core.event import Event

Level = Literal["note", "warning"]


@dataclass(frozen=True, slots=True)
class Forecast(Event):
    """What the run will take, from a short probe. Memory is the process's peak in bytes."""

    kind: ClassVar[str] = "forecast"
    steps: int
    seconds: float
    peak_bytes: int
    free_bytes: int | None
    parameters: int
    pictures: int


@dataclass(frozen=True, slots=True)
class Planned(Event):
    """The modes chosen to keep the run below a memory limit; amounts in bytes.

    `first_bytes` is the forecast without them, `mode` holds the settings that were changed.
    """

    kind: ClassVar[str] = "planned"
    limit_bytes: int
    peak_bytes: int
    first_bytes: int
    mode: dict[str, Any]
    message: str


@dataclass(frozen=True, slots=True)
class Preparing(Event):
    """A part of the preparation before step 1: `done` of `total`."""

    kind: ClassVar[str] = "preparing"
    what: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Step(Event):
    """One optimiser step is done."""

    kind: ClassVar[str] = "step"
    step: int
    steps: int
    loss: float
    learning_rate: float
    grad_norm: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Validation(Event):
    """The loss on held-out pictures at fixed noise and times; `base` is the untouched base's."""

    kind: ClassVar[str] = "validation"
    step: int
    loss: float
    base: float


@dataclass(frozen=True, slots=True)
class MonitorNote(Event):
    """What the learning monitor has to say, in words.

    `prompts_followed` is the share of scenes in a prompt that change the output as on the base.
    """

    kind: ClassVar[str] = "verdict"
    step: int
    level: Level
    message: str
    loss_gap: float
    output_change: float
    prompts_followed: float | None = None


@dataclass(frozen=True, slots=True)
class CheckpointSaved(Event):
    """The full state was written."""

    kind: ClassVar[str] = "checkpoint"
    step: int
    path: Path


@dataclass(frozen=True, slots=True)
class Preview(Event):
    """A preview was drawn."""

    kind: ClassVar[str] = "preview"
    step: int
    path: Path


@dataclass(frozen=True, slots=True)
class RolledBack(Event):
    """The loss was not finite; the run went back and lowered its learning rate."""

    kind: ClassVar[str] = "rolled_back"
    step: int
    to_step: int
    learning_rate_factor: float


@dataclass(frozen=True, slots=True)
class Scored(Event):
    """A checkpoint was scored on the small suite; means over its pictures."""

    kind: ClassVar[str] = "scored"
    step: int
    likeness: float
    agreement: float
    drift: float | None
    copies: float | None


@dataclass(frozen=True, slots=True)
class StoppedEarly(Event):
    """Training ends before its last step, and why."""

    kind: ClassVar[str] = "stopped_early"
    step: int
    reason: str


@dataclass(frozen=True, slots=True)
class Kept(Event):
    """The checkpoint of `step` becomes the artifact; the others worth keeping lie beside it."""

    kind: ClassVar[str] = "kept"
    step: int
    best: int
    most_flexible: int
    last: int
    reason: str


@dataclass(frozen=True, slots=True)
class Stopped(Event):
    """The run was asked to stop and saved its state."""

    kind: ClassVar[str] = "stopped"
    step: int
    path: Path


@dataclass(frozen=True, slots=True)
class Finished(Event):
    """The artifact is written, read back and found to draw the same."""

    kind: ClassVar[str] = "finished"
    path: Path
    seconds: float
    peak_bytes: int
    parameters: int
    file_bytes: int
