"""What a run will take, measured by a short probe before step 1."""

from __future__ import annotations

import time

from personae.core.memory import free_bytes, peak_bytes, reset_peak
from personae.errors import DoesNotFitError
from personae.models.acceleration.packs import Packs
from personae.training.events import Forecast
from personae.training.optim.optimizers import held_on, state_bytes
from personae.training.trainer import Trainer

WARMED_UP = 1.0  # seconds; what is set up in a first pass that takes longer does not count


def forecast(trainer: Trainer) -> Forecast:
    """Run the passes of the first step and say what the run will take.

    They are run again where much was set up in them. What they computed last is not lost: the first
    step begins with it.

    Raises:
        DoesNotFitError: more memory is needed than is free.
    """
    device = trainer.base.device
    reset_peak(device)
    before = free_bytes(device)
    packed_before = Packs.seconds
    seconds = _rehearsed(trainer)
    seconds -= Packs.seconds - packed_before  # no later step packs
    if seconds < WARMED_UP:
        seconds = _rehearsed(trainer)
    count = sum(parameter.numel() for parameter in trainer.parameters)
    moments = state_bytes(
        trainer.schedule.optimizer, held_on(device, trainer.optimizer.param_groups)
    )
    free = free_bytes(device)
    if free is not None and moments > free:
        raise DoesNotFitError(
            f"the optimiser needs {moments / 2**30:.1f} GiB more, {free / 2**30:.1f} GiB are free; "
            "use a smaller batch_size, gradient_checkpointing, --optimizer adafactor or a "
            "technique that trains fewer parameters"
        )
    return Forecast(
        steps=trainer.schedule.total_steps,
        seconds=seconds * trainer.schedule.total_steps,
        peak_bytes=peak_bytes(device) + moments,
        free_bytes=before,
        parameters=count,
        pictures=len(trainer.character.references),
    )


def _rehearsed(trainer: Trainer) -> float:
    """Return the seconds of the passes of a step."""
    started = time.perf_counter()
    trainer.rehearse(0, keep=True)
    return time.perf_counter() - started
