"""A trained character in use: loading it, switching to it, and drawing with it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from personae.artifacts.artifact import Artifact
from personae.artifacts.card import CharacterRecord
from personae.benchmark.jobs import Job
from personae.benchmark.noise_character import CLASS_NOUN, NAME
from personae.benchmark.operations import new_technique
from personae.core.seeds import generator_for
from personae.generation.generate import draw
from personae.generation.sampler import Shot
from personae.generation.settings import Sampling
from personae.models.load import load_base
from personae.study.handling_costs import handling_costs

PICTURES = 2
GUIDANCE = 5.0


def draw_ours(job: Job) -> dict[str, float]:
    """Return what our artifact of a technique takes."""
    base = load_base(job.base, device=job.device, precision=job.precision)
    technique = new_technique(job, base)
    with torch.no_grad():
        for parameter in technique.parameters():  # as training would, so that nothing is skipped
            stir = torch.randn(parameter.shape, generator=generator_for(0, "stir"))
            parameter.add_(1e-4 * stir.to(parameter.device, parameter.dtype))
    record = CharacterRecord(
        name=NAME, class_noun=CLASS_NOUN, phrase=technique.phrase(NAME, CLASS_NOUN)
    )
    with tempfile.TemporaryDirectory() as folder:
        artifact = Artifact.of([technique], base, character=record)
        path = artifact.save(Path(folder) / "mira.safetensors")
        cast, handling = handling_costs(path, NAME, base, now=job.now)
        costs: dict[str, float] = {"file_bytes": path.stat().st_size}
    sampling = Sampling(
        steps=job.picture_steps,
        guidance_scale=GUIDANCE,
        width=job.resolution,
        height=job.resolution,
    )
    shot = f"{{{NAME}}} at the beach"
    with cast.on(base):
        draw(base, [Shot(shot)], sampling.model_copy(update={"steps": 1}), cast)
        costs["picture_seconds"] = _median(
            job, lambda seed: draw(base, [Shot(shot, seed)], sampling, cast)
        )
    return {**costs, **handling.costs()}


def draw_plain(job: Job) -> dict[str, float]:
    """Return what diffusers takes with a LoRA or a textual inversion, or with its bare pipeline."""
    from personae.benchmark.plain_pipeline import PlainDrawing

    with tempfile.TemporaryDirectory() as folder:
        plain = PlainDrawing(job, Path(folder))
        costs = plain.handling()
    plain.picture(0, steps=1)
    return {**costs, "picture_seconds": _median(job, plain.picture)}


def _median(job: Job, action: Callable[[int], object]) -> float:
    seconds = []
    for seed in range(PICTURES):
        before = job.now()
        action(seed)
        seconds.append(job.now() - before)
    return median(seconds)
