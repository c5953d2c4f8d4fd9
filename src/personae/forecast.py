"""What a run will take, measured by a short probe before step 1."""

from __future__ import annotations

import time

from personae.devices import free_bytes, peak_bytes, reset_peak
from personae.errors import DoesNotFitError
from personae.events import Forecast
from personae.optimizers import held_on, state_bytes
from personae.workbench import Workbench


def forecast(bench: Workbench) -> Forecast:
    """Run two passes without an update and say what the run will take.

    Raises:
        DoesNotFitError: more memory is needed than is free.
    """
    device = bench.base.device
    reset_peak(device)
    before = free_bytes(device)
    bench.rehearse(0)
    started = time.perf_counter()
    bench.rehearse(0)
    seconds = time.perf_counter() - started
    count = sum(parameter.numel() for parameter in bench.parameters)
    moments = state_bytes(bench.schedule.optimizer, held_on(device, bench.optimizer.param_groups))
    free = free_bytes(device)
    if free is not None and moments > free:
        raise DoesNotFitError(
            f"the optimiser needs {moments / 2**30:.1f} GiB more, {free / 2**30:.1f} GiB are free; "
            "use a smaller batch_size, gradient_checkpointing, --optimizer adafactor or a "
            "technique that trains fewer parameters"
        )
    return Forecast(
        steps=bench.schedule.steps,
        seconds=seconds * bench.schedule.steps,
        peak_bytes=peak_bytes(device) + moments,
        free_bytes=before,
        parameters=count,
        pictures=len(bench.character.references),
    )
