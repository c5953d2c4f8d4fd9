"""The forecast costs nothing: the first step begins with what it has computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from personae.models.family import Family
from personae.training.rehearsal import forecast
from personae.training.trainer import Trainer
from tiny_world import run_config, techniques, trainer_of


def trainer_for(character: Path, base: Family, technique: str = "lora", **schedule: Any) -> Trainer:
    config = run_config(character, technique=technique, schedule={"warmup": 0.0, **schedule})
    return trainer_of(config, base)


def passes_of(trainer: Trainer, *steps: int) -> tuple[int, list[torch.Tensor], list[float]]:
    """Do the steps; return the passes with gradients, what is trained, and the losses."""
    count = 0

    def look(*_: Any) -> None:
        nonlocal count
        count += torch.is_grad_enabled()

    handle = trainer.base.denoiser.register_forward_pre_hook(look)
    try:
        losses = [trainer.step(step)[0] for step in steps]
        return count, [each.detach().clone() for each in trainer.parameters], losses
    finally:
        handle.remove()
        trainer.eject()


@pytest.mark.parametrize("technique", techniques())
def test_the_first_step_takes_the_gradients_of_the_forecast(
    technique: str, character: Path, sd1: Family
) -> None:
    plain_count, plain, plain_losses = passes_of(trainer_for(character, sd1, technique), 0, 1)
    foreseen = trainer_for(character, sd1, technique)
    forecast(foreseen)
    count, learnt, losses = passes_of(foreseen, 0, 1)
    assert (plain_count, count) == (2, 1)
    assert losses == plain_losses
    assert all(map(torch.equal, learnt, plain))


def test_a_step_that_was_not_rehearsed_begins_anew(character: Path, sd1: Family) -> None:
    _, plain, _ = passes_of(trainer_for(character, sd1), 3)
    foreseen = trainer_for(character, sd1)
    forecast(foreseen)
    count, learnt, _ = passes_of(foreseen, 3)
    assert count == 1
    assert all(map(torch.equal, learnt, plain))


def test_a_state_taken_up_makes_the_forecast_stale(character: Path, sd1: Family) -> None:
    foreseen = trainer_for(character, sd1)
    state = foreseen.state()
    forecast(foreseen)
    foreseen.restore(state)
    assert all(parameter.grad is None for parameter in foreseen.parameters)
    assert passes_of(foreseen, 0)[0] == 1


def test_nothing_is_left_of_a_forecast_with_updates_inside_the_pass(
    character: Path, sd1: Family
) -> None:
    foreseen = trainer_for(character, sd1, update="in_backward")
    forecast(foreseen)
    assert all(parameter.grad is None for parameter in foreseen.parameters)
    assert passes_of(foreseen, 0)[0] == 1
