"""A run is a folder: settings, events, checkpoints, previews, the artifact, the result."""

from __future__ import annotations

import json
import pickle
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, ValidationError

from personae.artifacts.card import TrainingRecord
from personae.characters.character_toml import as_name
from personae.core.config import Config, first_problem, read_toml, to_toml
from personae.core.devices import HOST
from personae.core.event import Event, EventLog
from personae.core.files import free_path, replacing, safe_name, write_text
from personae.core.lock import LOCK
from personae.errors import OccupiedError, TrainingError, UsageError
from personae.training.events import Kept, MonitorNote, Step
from personae.training.settings import RunConfig

KEPT_CHECKPOINTS = 2  # the newest, and one before it in case the newest is damaged


class RunResult(Config, extra="allow"):
    """What a finished run left: the schema of its `result.json`."""

    artifact: str = Field(pattern=r"^[^/\\]+$")
    """Name of the artifact's file in the run's folder."""
    training: TrainingRecord
    """What the training was and what it cost, as the artifact's card has it."""
    file_bytes: int
    """Size of the artifact's file."""


@dataclass(frozen=True, slots=True)
class RunState:
    """How far a run is.

    Attributes:
        finished: it has a result.
        step: steps done. steps: of the whole run, None while that is not decided.
        loss: of the latest step, None before the first.
        note: what the learning monitor said last, "" if nothing.
    """

    finished: bool
    step: int
    steps: int | None
    loss: float | None
    note: str


class RunFolder:
    """The files of one run.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def config_file(self) -> Path:
        """Return where the resolved settings are."""
        return self.path / "config.toml"

    @property
    def is_begun(self) -> bool:
        """Say whether a run was begun here, which can be resumed or has finished."""
        return self.config_file.is_file()

    @property
    def result_file(self) -> Path:
        """Return where the result is, once the run has finished."""
        return self.path / "result.json"

    def begin(self, config: RunConfig) -> None:
        """Create the folder for `config`.

        Raises:
            OccupiedError: it already holds a run.
        """
        if self.is_begun:
            raise OccupiedError(
                f"{self.path}: already holds a run; continue it with --resume {self.path}, or give "
                "another folder with --out"
            )
        self.write_config(config)

    def abandon(self) -> None:
        """Take back `begin` where nothing came of it, so that the folder can be used again."""
        self.config_file.unlink(missing_ok=True)
        (self.path / LOCK).unlink(missing_ok=True)
        with suppress(OSError):  # it was there before, with other things in it
            self.path.rmdir()

    def write_config(self, config: RunConfig) -> None:
        """Write the settings that the run, and any resuming of it, goes by."""
        write_text(self.config_file, to_toml(config))

    def config(self) -> RunConfig:
        """Read the settings of the run back.

        Raises:
            UsageError: the folder holds no run.
        """
        if not self.is_begun:
            raise UsageError(f"{self.path}: holds no run (no config.toml); check the path")
        return RunConfig.read(read_toml(self.config_file), where=str(self.config_file))

    def log(self, event: Event) -> None:
        """Append an event; a line is whole or not there.

        Raises:
            PersonaeError: the disk is full.
        """
        self._log.append(event)

    def events(self) -> list[Event]:
        """Return what happened so far; a line cut short by a crash is left out."""
        return self._log.read()

    def warnings(self, until: int | None = None) -> list[MonitorNote]:
        """Return what the learning monitor warned of when it looked last.

        Args:
            until: a step after which nothing counts; by default the one that was kept, whose
                checkpoint became the artifact.
        """
        told: dict[int, list[MonitorNote]] = {}
        kept: int | None = None
        for event in self.events():
            if isinstance(event, Step):  # what was told of a step that is done again is void
                told = {step: notes for step, notes in told.items() if step < event.step}
            elif isinstance(event, Kept):
                kept = event.step
            elif isinstance(event, MonitorNote):  # after the choice it is about what was kept
                told.setdefault(min(event.step, kept or event.step), []).append(event)
        last = until if until is not None else kept
        looks = [step for step in told if last is None or step <= last]
        return [note for note in told[max(looks)] if note.level == "warning"] if looks else []

    def state(self) -> RunState:
        """Return how far the run is, from its events.

        Raises:
            UsageError: the folder holds no run.
            TrainingError: its result is damaged.
        """
        planned, finished = self.config().schedule.steps, self.result() is not None
        step: Step | None = None
        note = ""
        for event in self.events():
            if isinstance(event, Step):
                step = event
            elif isinstance(event, MonitorNote):
                note = event.message
        if step is None:
            return RunState(finished, 0, planned, None, note)
        return RunState(finished, step.step, step.steps, step.loss, note)

    @property
    def _log(self) -> EventLog:
        advice = f"free space, then continue with --resume {self.path}"
        return EventLog(self.path / "events.jsonl", advice)

    def save_checkpoint(self, step: int, state: dict[str, Any]) -> Path:
        """Write the full state after `step` and drop all but the newest ones."""
        path = self.path / "checkpoints" / f"step-{step:06d}.pt"
        with replacing(path) as temporary, temporary.open("wb") as file:
            torch.save({"step": step, **state}, file)  # not by way of memory: it may be gigabytes
        for old in self._checkpoints()[:-KEPT_CHECKPOINTS]:
            old.unlink()
        return path

    def load_checkpoint(self) -> dict[str, Any] | None:
        """Read the newest readable state, or None if there is none.

        Raises:
            TrainingError: checkpoints are there, but none can be read.
        """
        for left in (self.path / "checkpoints").glob(".*.part"):  # by a process that was killed
            left.unlink()
        found = self._checkpoints()
        for path in reversed(found):
            state = _read_state(path)
            if state is not None:
                return state
        if found:
            raise TrainingError(
                f"{self.path}: none of its {len(found)} checkpoints can be read; start anew"
            )
        return None

    def write_result(self, result: RunResult) -> None:
        """Write the result; its presence marks the run as finished."""
        write_text(self.result_file, json.dumps(result.model_dump(mode="json"), indent=2) + "\n")

    def result(self) -> RunResult | None:
        """Read the result, or None while the run is not finished.

        Raises:
            TrainingError: the file is damaged.
        """
        if not self.result_file.is_file():
            return None
        try:
            return RunResult.model_validate(json.loads(self.result_file.read_bytes()))
        except (ValueError, RecursionError) as error:
            reason = "it is not JSON"
            if isinstance(error, ValidationError):
                reason = first_problem(RunResult, error)
            raise TrainingError(
                f"{self.result_file}: is damaged ({reason}); delete it, then write it anew with "
                f"--resume {self.path}"
            ) from None

    def finished(self) -> RunResult:
        """Read the result of a run that has finished.

        Raises:
            TrainingError: it has not, or the file is damaged.
        """
        result = self.result()
        if result is None:
            raise TrainingError(
                f"{self.path}: the run has not finished; continue it with --resume {self.path}"
            )
        return result

    def _checkpoints(self) -> list[Path]:
        return sorted((self.path / "checkpoints").glob("step-*.pt"))


def free_folder(config: RunConfig) -> Path:
    """Return runs/<character>-<technique>, with a number where that is taken."""
    stem = f"{safe_name(as_name(config.character.stem))}-{config.technique}"
    return free_path(Path("runs"), stem)


def _read_state(path: Path) -> dict[str, Any] | None:
    """Return a checkpoint, or None if it is damaged (by its own checksums) or holds code."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                return None
        state: dict[str, Any] = torch.load(path, map_location=HOST, weights_only=True)
        return state
    except (OSError, RuntimeError, zipfile.BadZipFile, pickle.UnpicklingError):
        return None
