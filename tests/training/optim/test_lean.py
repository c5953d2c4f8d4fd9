"""Optimisers in little memory: the same numbers as the known ones, and nothing lost in bf16."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from personae.errors import UsageError
from personae.training.optim.lean import Adafactor, AdamW8bit, LeanAdamW
from personae.training.optim.optimizers import LEAN, make_optimizer, state_bytes

SHAPES = [(70, 40, 3, 3), (300, 64), (129,)]
ROUNDINGS = ("stochastic", "kahan")


def groups(dtype: torch.dtype = torch.float32, **more: Any) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    params = [
        torch.nn.Parameter((torch.randn(shape, generator=generator) * 0.005).to(dtype))
        for shape in SHAPES
    ]
    return [{"params": params, "lr": 1e-3, "weight_decay": 0.01, **more}]


def follow(
    optimizer: torch.optim.Optimizer, steps: int, first: int = 0, pull: float = 1.0
) -> list[torch.Tensor]:
    """Do steps on gradients that depend on the step alone; return the weights."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for step in range(first, first + steps):
        generator = torch.Generator().manual_seed(step)
        for parameter in parameters:
            drawn = torch.randn(parameter.shape, generator=generator) * 1e-3 + pull * 1e-3
            parameter.grad = drawn.to(parameter.dtype)
        optimizer.step()
    return [parameter.detach().float().clone() for parameter in parameters]


def test_adamw_tensor_by_tensor_is_that_of_torch() -> None:
    known = follow(torch.optim.AdamW(groups(), betas=(0.9, 0.99)), 5)
    for mine, theirs in zip(follow(LeanAdamW(groups(), seed=0), 5), known, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-7)


def test_adafactor_on_matrices_is_that_of_transformers() -> None:
    from transformers.optimization import Adafactor as Known

    mine, theirs = groups(), groups()
    known = Known(theirs, scale_parameter=False, relative_step=False, eps=(1e-30, 1e-3))
    follow(known, 5)
    follow(Adafactor(mine, seed=0), 5)
    for a, b in zip(mine[0]["params"][1:], theirs[0]["params"][1:], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_eight_bits_of_state_move_the_weights_as_far_as_thirty_two() -> None:
    start = [p.detach().clone() for p in groups()[0]["params"]]
    known = follow(LeanAdamW(groups(), seed=0), 20)
    for begin, mine, theirs in zip(
        start, follow(AdamW8bit(groups(), seed=0), 20), known, strict=True
    ):
        way, difference = (theirs - begin).norm(), (mine - theirs).norm()
        assert difference < 0.1 * way


@pytest.mark.parametrize("name", list(LEAN))
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_bf16_weights_follow_float32_ones_at_a_rate_that_bf16_cannot_see(
    name: str, rounding: str
) -> None:
    options = {"lr": 1e-6, "weight_decay": 0.0}
    narrow = groups(torch.bfloat16, **options, rounding=rounding)
    wide = groups(**options)
    with torch.no_grad():
        for a, b in zip(narrow[0]["params"], wide[0]["params"], strict=True):
            b.copy_(a)
    before = [p.detach().float().clone() for p in wide[0]["params"]]
    mine = follow(make_optimizer(name, narrow, seed=1), 40)
    theirs = follow(make_optimizer(name, wide, seed=1), 40)
    for start, a, b in zip(before[:2], mine, theirs, strict=False):
        moved = (b - start).mean()
        assert moved.abs() > 2e-5
        assert (a - start).mean() == pytest.approx(moved.item(), rel=0.15)


@pytest.mark.parametrize("name", list(LEAN))
@pytest.mark.parametrize("rounding", ["nearest", *ROUNDINGS])
def test_a_resumed_optimizer_continues_bit_for_bit(name: str, rounding: str) -> None:
    dtype = torch.float32 if rounding == "nearest" else torch.bfloat16
    whole, parts = groups(dtype, rounding=rounding), groups(dtype, rounding=rounding)
    wanted = follow(make_optimizer(name, whole, seed=2, lean=True), 5)
    first = make_optimizer(name, parts, seed=2, lean=True)
    follow(first, 2)
    state = first.state_dict()
    second = make_optimizer(name, parts, seed=2, lean=True)
    second.load_state_dict(state)
    for mine, theirs in zip(follow(second, 3, first=2), wanted, strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("name", list(LEAN))
@pytest.mark.parametrize("rounding", ["nearest", "kahan"])
def test_the_bytes_of_the_states_are_known_beforehand(name: str, rounding: str) -> None:
    made = groups(torch.float32 if rounding == "nearest" else torch.bfloat16, rounding=rounding)
    optimizer = make_optimizer(name, made, lean=True)
    follow(optimizer, 1)
    kept = sum(
        value.numel() * value.element_size()
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    )
    assert state_bytes(name, made) == kept


def test_states_are_as_small_as_they_say() -> None:
    (weight,) = (p for p in groups()[0]["params"] if p.dim() == 4)
    count = weight.numel()
    assert AdamW8bit.state_bytes(weight) < 2.1 * count
    assert Adafactor.state_bytes(weight) < 0.1 * count


@pytest.mark.parametrize(
    ("options", "wish"), [({"lean": True}, "in_backward"), ({}, "bf16 weights")]
)
def test_an_optimizer_that_cannot_is_refused_in_words(options: dict, wish: str) -> None:
    rounding = "nearest" if options else "kahan"
    with pytest.raises(UsageError, match=f"prodigy', which cannot do .*{wish}.*adafactor"):
        make_optimizer("prodigy", groups(rounding=rounding), **options)
