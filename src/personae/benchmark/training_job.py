"""Training steps of one process: ours through the verb people use, and the plain loop's."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from statistics import median
from typing import Any

from personae.benchmark.jobs import Job
from personae.benchmark.noise_character import paint_character
from personae.core.devices import PRECISIONS, pick_device, synchronize
from personae.core.event import Event
from personae.core.memory import give_back_as_freed, held_bytes, peak_bytes

NEVER = 10**6


def train_ours(job: Job) -> dict[str, float]:
    """Return what `train` takes, without its checkpoints and previews.

    With a limit the denoiser is read by the training, as `train` does, and not while loading.
    """
    from personae.core.registry import discover
    from personae.models.family import Family
    from personae.models.load import load_base
    from personae.training.settings import RunConfig
    from personae.training.train import train

    discover(Family)  # imports what loading imports, which is no part of loading
    if job.memory:
        give_back_as_freed()  # before anything is loaded, as `train` does
    before = job.now()
    base = load_base(
        job.base,
        device=job.device,
        precision=job.precision,
        denoiser_unloaded=job.memory is not None,
    )
    loaded = job.now() - before
    with tempfile.TemporaryDirectory() as folder:
        side = job.resolution or base.resolution
        seed = int(job.started * 1000) % 2**31
        character = paint_character(Path(folder) / "character", job.batch, side, seed)
        config = RunConfig.read(_settings(job, character))
        events = train(config, Path(folder) / "run", base=base)
        forecast: dict[str, float] = {}
        walk = _steps(events, forecast)
        timed = _timed(job, lambda: next(walk))
        memory = {"peak_bytes": peak_bytes(base.device), "steady_bytes": held_bytes(base.device)}
        walk.close()
        events.close()
    return {**timed, **memory, **forecast, "load_seconds": loaded}


def _steps(events: Iterator[Event], forecast: dict[str, float]) -> Generator[None, None, None]:
    """Yield after each training step; what was forecast is written into `forecast`."""
    from personae.training.events import Forecast, RolledBack, Step

    for event in events:
        if isinstance(event, Forecast):
            forecast["forecast_bytes"] = event.peak_bytes
        if isinstance(event, RolledBack):
            raise ArithmeticError(f"the loss broke at step {event.step}")
        if isinstance(event, Step):
            yield


def _settings(job: Job, character: Path) -> dict[str, Any]:
    schedule = {
        "batch_size": job.batch,
        "steps": NEVER,
        "prior": "none",
        "resolution": job.resolution,
    }
    rare = dict.fromkeys(("preview_every", "validate_every", "checkpoint_every"), NEVER)
    return {
        "character": str(character),
        "base": job.base,
        "technique": job.technique,
        "device": job.device,
        "precision": job.precision,
        "memory": job.memory,
        "schedule": schedule,
        "settings": {job.technique: job.settings},
        **rare,
    }


def train_plain(job: Job) -> dict[str, float]:
    """Return what the plain loop takes."""
    from personae.benchmark.plain_loop import PlainLoop, inputs

    device, dtype = pick_device(job.device), PRECISIONS[job.precision]
    before = job.now()
    loop = PlainLoop(Path(job.base), job.technique, dtype=dtype, device=device, rank=job.rank)
    loaded = job.now() - before
    batch = inputs(job.batch, job.resolution or loop.side)

    def step() -> None:
        loop.step(**batch)
        synchronize(device)

    timed = _timed(job, step)
    memory = {"peak_bytes": peak_bytes(device), "steady_bytes": held_bytes(device)}
    return {**timed, **memory, "load_seconds": loaded}


def _timed(job: Job, step: Callable[[], None]) -> dict[str, float]:
    """Return the median step and the time from the start of the process to the first one done."""
    step()
    first = job.since_start()
    seconds = []
    for _ in range(job.steps - 1):
        job.give_way()
        before = job.now()
        step()
        seconds.append(job.now() - before)
    return {"step_seconds": median(seconds), "first_step_seconds": first}
