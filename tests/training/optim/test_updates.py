"""Updates inside the backward pass, and batches computed in parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from personae.errors import UsageError
from personae.models.family import Family
from personae.training.events import RolledBack, Step, Stopped
from personae.training.optim import lean, updates
from personae.training.schedule import Schedule
from personae.training.trainer import Trainer
from tiny_world import bare, only, run, run_config, techniques, trainer_of


def trainer_for(character: Path, base: Family, technique: str = "lora", **schedule: Any) -> Trainer:
    config = run_config(character, technique=technique, schedule=schedule)
    return trainer_of(config, base)


def learnt(character: Path, base: Family, technique: str, **schedule: Any) -> list[torch.Tensor]:
    trainer = trainer_for(character, base, technique, warmup=0.0, **schedule)
    try:
        for step in range(3):
            trainer.step(step)
        return [parameter.detach().clone() for parameter in trainer.parameters]
    finally:
        trainer.eject()


@pytest.mark.parametrize("technique", techniques())
def test_updates_inside_and_after_the_backward_pass_are_the_same_unclipped(
    technique: str, character: Path, shallow: Family
) -> None:
    after = learnt(character, shallow, technique, max_grad_norm=1e6)
    inside = learnt(character, shallow, technique, max_grad_norm=1e6, update="in_backward")
    for mine, theirs in zip(inside, after, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)  # of 3 steps of 1e-3
    assert bare(shallow)


def test_no_gradient_is_left_after_a_backward_pass(character: Path, shallow: Family) -> None:
    """Neither after a step nor after a rehearsal, and at most a few at any moment."""
    trainer = trainer_for(character, shallow, "dreambooth", update="in_backward")
    held: list[int] = []

    def look(_: torch.Tensor) -> None:
        held.append(sum(p.grad is not None for p in trainer.parameters))

    handles = [p.register_post_accumulate_grad_hook(look) for p in trainer.parameters]
    try:
        trainer.rehearse(0)
        before = [p.detach().clone() for p in trainer.parameters]
        assert all(map(torch.equal, before, trainer.parameters))
        trainer.step(0)
        assert not all(map(torch.equal, before, trainer.parameters))
        assert all(p.grad is None for p in trainer.parameters)
        assert max(held) <= 2 < len(trainer.parameters)
    finally:
        for handle in handles:
            handle.remove()
        trainer.eject()


def test_each_tensor_is_clipped_on_its_own(character: Path, shallow: Family) -> None:
    trainer = trainer_for(character, shallow, update="in_backward", max_grad_norm=1e-3)
    taken: list[torch.Tensor] = []
    try:
        trainer.optimizer.update = lambda parameter: taken.append(parameter.grad.norm())
        _, norm = trainer.step(0)
    finally:
        trainer.eject()
    assert norm > 1e-3
    assert max(taken).item() == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_a_norm_that_is_not_read_scales_as_one_that_is(
    optimizer: str, character: Path, shallow: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a device the host does not wait for norms; here it is told that this is one."""
    schedule = {"update": "in_backward", "optimizer": optimizer, "max_grad_norm": 1e-3}
    read = learnt(character, shallow, "lora", **schedule)
    for module in (lean, updates):
        monkeypatch.setattr(module, "at_hand", lambda scalar: scalar)
    for mine, theirs in zip(learnt(character, shallow, "lora", **schedule), read, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("extra", [{"gradient_accumulation": 2}, {"micro_batch": 1}])
def test_updates_inside_a_backward_pass_of_many_are_refused(extra: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="needs the whole gradient in one backward pass"):
        Schedule.parse({"update": "in_backward", "batch_size": 2, **extra})


def test_a_run_inside_the_backward_pass_goes_back_when_the_loss_breaks(
    character: Path, shallow: Family, tmp_path: Path
) -> None:
    schedule = {"update": "in_backward", "steps": 3, "optimizer": "adafactor"}
    config = run_config(character, technique="dreambooth", schedule=schedule)
    broken = []

    def spoil(module: torch.nn.Module, _: Any, output: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled() and len(broken) < 4:
            broken.append(1)
            return output * (float("nan") if len(broken) == 4 else 1.0)
        return output

    handle = shallow.denoiser.conv_out.register_forward_hook(spoil)
    try:
        events = run(config, tmp_path / "run", shallow)
    finally:
        handle.remove()
    assert len(only(events, RolledBack)) == 1


LEAN = [
    ("adafactor", "bf16_stochastic", "in_backward"),
    ("adamw8bit", "bf16_kahan", "in_backward"),
    ("adamw8bit", "fp32", "after_backward"),
]


@pytest.mark.parametrize(("optimizer", "precision", "update"), LEAN)
def test_a_lean_run_resumes_bit_for_bit(
    optimizer: str, precision: str, update: str, character: Path, shallow: Family, tmp_path: Path
) -> None:
    config = run_config(
        character,
        technique="dreambooth",
        settings={"dreambooth": {"weight_precision": precision}},
        schedule={"optimizer": optimizer, "update": update, "ema": 0.8, "learning_rate": 1e-4},
    )
    asked = iter(range(2))
    whole = run(config, tmp_path / "whole", shallow)
    first = run(config, tmp_path / "parts", shallow, should_stop=lambda: next(asked, None) is None)
    assert isinstance(first[-1], Stopped)
    rest = run(config, tmp_path / "parts", shallow, resume=True)
    seen = [(e.step, e.loss, e.grad_norm) for e in only([*first, *rest], Step)]
    assert seen == [(e.step, e.loss, e.grad_norm) for e in only(whole, Step)]
    one, two = (next((tmp_path / name).glob("*.safetensors")) for name in ("whole", "parts"))
    from safetensors.torch import load_file

    for mine, theirs in zip(load_file(one).values(), load_file(two).values(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("technique", techniques())
@pytest.mark.parametrize("prior", ["none", "prediction"])
def test_a_batch_in_parts_has_the_gradient_of_the_whole(
    technique: str, prior: str, character: Path, shallow: Family
) -> None:
    gradients = []
    for micro_batch in (None, 3, 1):
        schedule = {"batch_size": 4, "micro_batch": micro_batch, "prior": prior}
        trainer = trainer_for(character, shallow, technique, **schedule)
        try:
            loss = trainer.backward(0).sum()
            gradients.append([p.grad for p in trainer.parameters])
        finally:
            trainer.eject()
        assert loss > 0
    whole, *parts = gradients
    for others in parts:
        for mine, theirs in zip(others, whole, strict=True):
            if theirs is None:
                assert mine is None
                continue
            torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-6)
