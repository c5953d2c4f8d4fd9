"""Runs measurements, each in its own process, ours and theirs by turns."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from personae.benchmark.jobs import Job, Kind, Plan, techniques_of
from personae.benchmark.plain_loop import TECHNIQUES
from personae.benchmark.results import Results
from personae.benchmark.turns import measure_together
from personae.core.devices import PRECISIONS, pick_device
from personae.core.registry import discover
from personae.errors import UsageError
from personae.models.acceleration.wide_products import lacks_kernels
from personae.models.weights import sources
from personae.models.weights.quantised import QUANTISED, pick_format
from personae.techniques.technique import Technique

SHAPED = "sd15-shape"


@dataclass(frozen=True, slots=True)
class Measuring:
    """Progress: `done` of `total` measurements; `title` is the one that begins.

    `results` holds what was measured so far, and at the end everything.
    """

    done: int
    total: int
    title: str
    results: Results


def bench(plan: Plan) -> Iterator[Measuring]:
    """Measure what `plan` asks for, yielding progress with the results so far.

    Raises:
        PersonaeError: the plan cannot be measured, or a process broke.
    """
    groups = together(jobs_of(plan, where(plan)))
    results = Results(plan)
    with tempfile.TemporaryDirectory() as cache:
        for done, jobs in enumerate(groups):
            title = jobs[0].title if len(jobs) == 1 else f"training, {len(jobs)} in turns"
            yield Measuring(done, len(groups), title, results)
            for job, figures in zip(jobs, measure_together(jobs, Path(cache)), strict=True):
                results.add(job, figures)
    yield Measuring(len(groups), len(groups), "", results)


def together(jobs: Iterable[Job]) -> list[list[Job]]:
    """Return the jobs in the order they are made, with those that take turns by steps together."""
    groups: dict[object, list[Job]] = {}
    for number, job in enumerate(jobs):
        by_steps = job.kind == "training" and job.turns == "steps"
        groups.setdefault((job.precision, job.round) if by_steps else number, []).append(job)
    return list(groups.values())


def where(plan: Plan) -> str:
    """Return the folder or name of the base; the shaped one is made the first time.

    Raises:
        UsageError: the plain loop is asked for on a base that is no diffusers folder, or without
            peft.
    """
    if plan.against and find_spec("peft") is None:
        raise UsageError(
            f"--against {plan.against} needs peft for its LoRA; pip install 'personae[bench]'"
        )
    if plan.base == SHAPED:
        from personae.benchmark.shapes import shaped_base

        return str(shaped_base())
    found = sources.embedded_bases().get(plan.base, Path(plan.base))
    if plan.against and not (found / "model_index.json").is_file():
        raise UsageError(
            f"base is '{plan.base}'; --against {plan.against} needs a diffusers folder, an "
            f"embedded base or {SHAPED}"
        )
    return str(found) if found.exists() else plan.base


def jobs_of(plan: Plan, base: str) -> Iterator[Job]:
    """Yield the measurements in the order in which they are made."""
    techniques, parts = techniques_of(plan, list(discover(Technique))), plan.parts()
    device = pick_device(plan.device)
    for precision in plan.precisions():
        name = _full_name(precision, plan.device)
        if plan.against and lacks_kernels(device, pick_format(name, device)):
            raise UsageError(
                f"precision is '{name}', for which this processor has no kernels, so that a step "
                "of the plain loop of --against takes minutes; use --precision fp32"
            )
        yield Job.of(plan, base, "peak", precision=name)
        for technique in techniques:
            rivals = [plan.against] if plan.against and technique in TECHNIQUES else []
            same = {"precision": name, "technique": technique}
            kinds: tuple[Kind, ...] = ("operations", *parts)
            for kind in kinds:
                # diffusers draws a hypernetwork's character with nothing: its pipeline alone.
                others = [plan.against] if plan.against and kind == "drawing" else rivals
                for number in range(1 if kind == "operations" else plan.rounds):
                    for side in ("personae", *others):
                        yield Job.of(plan, base, kind, side=side, round=number, **same)


def _full_name(precision: str, device: str) -> str:
    """Return the format that `auto` stands for, or `precision` itself."""
    if precision in QUANTISED:
        return precision
    chosen = pick_format(precision, pick_device(device))
    return next(name for name, dtype in PRECISIONS.items() if dtype is chosen)
