"""Bounds of what may be asked for, and a forecast of what the machine can hold."""

from __future__ import annotations

from typing import Any

import pytest

from personae.core.units import parse_bytes
from personae.errors import UsageError
from personae.evaluation.settings import JudgingSettings
from personae.generation.generate import draw
from personae.generation.memory_check import least_bytes
from personae.generation.recipe import Recipe
from personae.generation.sampler import Shot
from personae.generation.settings import Sampling
from personae.models.family import Family
from personae.study.presets import FairComparison
from personae.techniques.lora import LoRA
from personae.training.schedule import Schedule
from personae.training.settings import RunConfig

HUGE = 10**9
RECIPE = {"version": "1", "base": "toon", "fingerprint": "0", "precision": "float32"}


@pytest.mark.parametrize(
    ("schema", "values"),
    [
        *((Sampling, {name: HUGE}) for name in ("steps", "width", "height", "tile")),
        (Sampling, {"rows_at_once": HUGE}),
        *((Sampling, {"guidance_scale": value}) for value in (1e9, float("inf"), float("nan"))),
        *((Schedule, {name: HUGE}) for name in ("steps", "batch_size", "gradient_accumulation")),
        *((Schedule, {name: HUGE}) for name in ("micro_batch", "prior_images", "resolution")),
        *((Schedule, {"learning_rate": value}) for value in (1e9, float("inf"), float("nan"))),
        (RunConfig, {"character": "x", "seed": 2**64}),
        (LoRA.Config, {"rank": HUGE}),
        *((JudgingSettings, {name: HUGE}) for name in ("seeds", "class_seeds")),
        *((FairComparison, {name: HUGE}) for name in ("seeds", "pictures")),
        (Recipe, {**RECIPE, "batch": [{"prompt": "x", "seed": 2**64}]}),
        (Recipe, {**RECIPE, "batch": [{"prompt": "x", "seed": 0}] * 5000}),
        (Recipe, {**RECIPE, "batch": [{"prompt": "x", "seed": 0}], "sampling": {"width": HUGE}}),
    ],
)
def test_no_setting_is_without_an_upper_bound(schema: Any, values: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        schema.parse(values)


@pytest.mark.parametrize("text", ["9" * 400 + "GiB", "1e9GiB", "9" * 30])
def test_no_amount_of_memory_is_beyond_every_machine(text: str) -> None:
    with pytest.raises(UsageError, match="is no amount of memory"):
        parse_bytes(text)


def test_the_forecast_grows_with_pictures_and_shrinks_with_tiles(sd1: Family) -> None:
    one, four = (least_bytes(sd1, rows, (512, 512)) for rows in (1, 4))
    assert one < four <= 4 * one
    assert least_bytes(sd1, 1, (1024, 1024)) == 4 * one
    assert least_bytes(sd1, 1, (1024, 1024), 256) < least_bytes(sd1, 1, (1024, 1024))


def test_pictures_that_cannot_fit_are_refused_before_they_are_drawn(sd1: Family) -> None:
    shots = [Shot("a cat", seed) for seed in range(4096)]
    large = Sampling(width=16_384, height=16_384, steps=1)
    with pytest.raises(UsageError, match="GB are free; draw smaller"):
        draw(sd1, shots, large, batch_size=4096)
