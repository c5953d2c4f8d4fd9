"""The training loop: one for every technique, every family and every combination of both.

`train` is a generator of events. Stopping is asking (`should_stop`) or closing it; a killed run
continues bit for bit from its last checkpoint, because every draw follows from (seed, step).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

from personae.characters.character import Character
from personae.core.event import Event
from personae.core.lock import alone_in
from personae.core.memory import give_back_freed
from personae.errors import PersonaeError, TrainingError, UsageError
from personae.models.family import Family
from personae.techniques.modes import settled, untouched
from personae.training.events import CheckpointSaved, RolledBack, Step, Stopped, Validation
from personae.training.memory.plan import within_limit
from personae.training.monitor import Monitor, other_rate, usual_rate
from personae.training.previews import preview
from personae.training.proof import finish
from personae.training.rehearsal import forecast
from personae.training.run_folder import RunFolder
from personae.training.selection import CheckpointSelector
from personae.training.settings import RunConfig
from personae.training.setup import set_up
from personae.training.tensorboard import TensorBoardLog
from personae.training.trained_on import refuse_other
from personae.training.trainer import Trainer, artifact_of, at_work

ROLLBACK_FACTOR = 0.3


def train(
    config: RunConfig,
    out: str | Path,
    *,
    resume: bool = False,
    base: Family | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Generator[Event, None, None]:
    """Train a character and yield what happens; the last event is `Finished` or `Stopped`.

    Args:
        config: what to train on what.
        out: the run folder; a new one, or with `resume` the one to continue.
        base: an already loaded base, to save loading it again.
        should_stop: asked before each step; True ends the run with its state saved.

    Raises:
        PersonaeError: settings, pictures, base or machine do not allow the run; or it broke.
    """
    folder = RunFolder(out)
    if resume:
        folder.config()  # a folder without a run is not made
    with alone_in(folder.path, "training"):
        config = _begun(folder) if resume else _begin(folder, config)
        begun = resume
        try:
            board = TensorBoardLog(folder.path) if config.tensorboard else None
            for event in _run(config, folder, base, should_stop, planned=resume):
                begun = True
                folder.log(event)
                if board is not None:
                    board.log(event)
                yield event
        except PersonaeError:
            if not begun:  # refused before anything happened: no folder of a run is left
                folder.abandon()
            raise


def _begin(folder: RunFolder, config: RunConfig) -> RunConfig:
    """Begin a run that can be resumed from any working folder; return its settings."""
    config = config.model_copy(update={"character": config.character.resolve()})
    folder.begin(config)
    return config


def _begun(folder: RunFolder) -> RunConfig:
    """Return the settings of a run that is to go on.

    Raises:
        UsageError: it has finished, or there is none.
    """
    config = folder.config()
    if folder.result() is not None:
        raise UsageError(f"{folder.path}: this run has finished; its artifact is in the folder")
    return config


def _run(
    config: RunConfig,
    folder: RunFolder,
    base: Family | None,
    should_stop: Callable[[], bool],
    *,
    planned: bool,
) -> Iterator[Event]:
    character = _character(config)
    with within_limit(config, character, base, planned=planned) as (config, base, plan):
        # Resolved, so that a later version with other advice resumes it too.
        folder.write_config(config)
        if plan is not None:
            yield plan
        trainer = yield from set_up(config, character, base)
        with at_work(trainer):
            yield forecast(trainer)
            yield from _loop(trainer, folder, should_stop)


def _character(config: RunConfig) -> Character:
    """Open the character of a run.

    Raises:
        PersonaeError: there is none, or it may not be mirrored as the settings say.
    """
    character = Character.open(config.character)
    if config.schedule.flip and character.asymmetric:
        raise UsageError(
            f"flip is on, but {character.name} is asymmetric (character.toml says so): mirrored "
            "pictures would teach a wrong one; leave --flip out"
        )
    return character


def _loop(trainer: Trainer, folder: RunFolder, should_stop: Callable[[], bool]) -> Iterator[Event]:
    """Train to the end: step, watch, validate, save, preview."""
    rhythm = Rhythm.of(trainer)
    selector = CheckpointSelector(trainer, folder) if trainer.config.keep != "last" else None
    monitor = Monitor.of(trainer)
    base_loss: float | None = None  # of the base alone; looked at when it is first told
    step = _take_up(trainer, folder)
    monitor.warned = bool(folder.warnings(step))
    if selector:
        yield from selector.catch_up(trainer, step, rhythm.checkpoint)
    while step < trainer.schedule.total_steps and not (selector and selector.enough):
        if should_stop():
            yield Stopped(step, folder.save_checkpoint(step, trainer.state()))
            return
        if trainer.config.saves_memory and rhythm.pauses(step):
            give_back_freed()  # by previews and the like: it would count
        done = _stepped(trainer, step)
        if done is None:
            rolled_back = _roll_back(trainer, folder, step)
            yield rolled_back
            step = rolled_back.to_step
            continue
        yield done
        step = done.step
        note = monitor.look(step, trainer.schedule)
        if note:
            yield note
        last = step == trainer.schedule.total_steps
        if trainer.held_out and (last or step % rhythm.validate == 0):
            base_loss = _validation(trainer, base_alone=True) if base_loss is None else base_loss
            yield Validation(step, _validation(trainer), base_loss)
        if step % rhythm.checkpoint == 0 and not last:
            yield CheckpointSaved(step, folder.save_checkpoint(step, trainer.state()))
        if step % rhythm.preview == 0 and not last:
            yield from preview(trainer, artifact_of(trainer), folder, step)
        if selector and (last or step % rhythm.checkpoint == 0):
            yield from selector.look(trainer, step)
    if selector:
        yield from selector.conclude(trainer)
    yield from finish(trainer, folder)


def _stepped(trainer: Trainer, step: int) -> Step | None:
    """Do the step that follows `step` others; None where loss or gradients are not finite."""
    started = time.perf_counter()
    loss, norm = trainer.step(step)
    if not (math.isfinite(loss) and math.isfinite(norm)):
        return None
    rate, seconds = trainer.optimizer.param_groups[0]["lr"], time.perf_counter() - started
    return Step(step + 1, trainer.schedule.total_steps, loss, rate, norm, seconds)


def _take_up(trainer: Trainer, folder: RunFolder) -> int:
    """Continue from the newest checkpoint, or write the first; return the step reached.

    Raises:
        TrainingError: pictures, settings or base are not those the run began with.
    """
    state = folder.load_checkpoint()
    if state is None:
        folder.save_checkpoint(0, trainer.state())
        return 0
    if "trained_on" in state:  # states of older versions do not say it
        refuse_other(state["trained_on"], trainer.trained_on, folder.path)
    trainer.restore(state)
    step: int = state["step"]
    return step


@dataclass(frozen=True, slots=True)
class Rhythm:
    """Steps between checkpoints, previews and validations."""

    checkpoint: int
    preview: int
    validate: int

    @classmethod
    def of(cls, trainer: Trainer) -> Rhythm:
        """Return what the settings say: by default 4 checkpoints and 10 validations in a run."""
        config, steps = trainer.config, trainer.schedule.total_steps
        checkpoint = config.checkpoint_every or max(1, math.ceil(steps / 4))
        preview = config.preview_every or checkpoint
        return cls(checkpoint, preview, config.validate_every or max(1, math.ceil(steps / 10)))

    def pauses(self, step: int) -> bool:
        """Say whether anything is saved, drawn or validated after `step` steps."""
        return any(step % every == 0 for every in (self.checkpoint, self.preview, self.validate))


def _validation(trainer: Trainer, *, base_alone: bool = False) -> float:
    """Return the loss on the held-out pictures at fixed noise and times, 0 without any."""
    if trainer.held_out is None:
        return 0.0
    if base_alone:
        with untouched(trainer.techniques):
            return trainer.held_out.loss(trainer.texts)
    with settled(trainer.techniques):
        return trainer.held_out.loss(trainer.texts)


def _roll_back(trainer: Trainer, folder: RunFolder, step: int) -> RolledBack:
    """Return to the last good state with a lower rate, once.

    Raises:
        TrainingError: the loss broke a second time.
    """
    rate = trainer.schedule.peak_rate
    if trainer.lowered < 1.0:
        usual = usual_rate(trainer.base, trainer.techniques[0], trainer.schedule.optimizer)
        lower = other_rate(rate, usual, 1 / 10)
        raise TrainingError(
            f"the loss stopped being a number at step {step}, again after going back and lowering "
            f"the learning rate; the last good state is in {folder.path}; start anew with "
            f"--learning-rate {lower:.1e} (was {rate:.1e}), or --precision fp32"
        )
    state = folder.load_checkpoint()
    if state is None:
        raise TrainingError(f"{folder.path}: has no checkpoint to go back to; start anew")
    trainer.restore(state)
    trainer.lowered = ROLLBACK_FACTOR
    return RolledBack(step, state["step"], ROLLBACK_FACTOR)
