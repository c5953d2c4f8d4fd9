"""Optimisers by name and the rate over a run."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Sequence

import pytest
import torch

from personae.errors import UsageError
from personae.training.optim.names import OPTIMIZERS, OWN_RATES
from personae.training.optim.optimizers import LEAN, WHOLE, make_optimizer
from personae.training.optim.rates import rate_factor, set_rate

LIBRARIES = {"prodigy": "prodigyopt"}


def groups(rates: Sequence[float] = (0.1, 0.2)) -> list[dict]:
    return [
        {"params": [torch.nn.Parameter(torch.ones(3))], "lr": lr, "weight_decay": 0.0}
        for lr in rates
    ]


def test_the_names_are_those_of_the_optimizers_there_are() -> None:
    assert set(OPTIMIZERS) == {*WHOLE, *LEAN}


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_each_optimizer_descends_or_says_what_to_install(name: str) -> None:
    library = LIBRARIES.get(name)
    if library and importlib.util.find_spec(library) is None:
        with pytest.raises(UsageError, match=f"needs {library}.*pip install {library}, or"):
            make_optimizer(name, groups())
        return
    made = groups([OWN_RATES[name]] * 2) if name in OWN_RATES else groups()
    optimizer = make_optimizer(name, made)
    for _ in range(3):
        optimizer.zero_grad()
        sum(group["params"][0].square().sum() for group in made).backward()
        optimizer.step()
    assert all((group["params"][0] < 1).all() for group in made)


@pytest.mark.skipif(importlib.util.find_spec("prodigyopt") is None, reason="needs prodigyopt")
def test_prodigy_refuses_parts_that_learn_at_different_rates() -> None:
    with pytest.raises(UsageError, match=r"one rate for everything.*0\.1 and 0\.2 times"):
        make_optimizer("prodigy", groups())


def test_an_unknown_optimizer_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"optimizer is 'adamm'.*Did you mean 'adamw'"):
        make_optimizer("adamm", groups())


def test_the_rate_of_each_group_follows_its_own_peak() -> None:
    optimizer = make_optimizer("adamw", groups())
    for factor in (0.5, 0.25):
        set_rate(optimizer, factor)
        assert [group["lr"] for group in optimizer.param_groups] == [0.1 * factor, 0.2 * factor]


@pytest.mark.parametrize("shape", ["constant", "cosine", "linear"])
def test_the_rate_rises_to_its_peak_and_falls_as_asked(shape: str) -> None:
    factors = [rate_factor(step, 100, 0.1, shape) for step in range(100)]
    assert factors[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert factors[10] == 1.0
    if shape == "constant":
        assert set(factors[10:]) == {1.0}
    else:
        assert all(after < before for before, after in itertools.pairwise(factors[10:]))
        assert factors[55] == pytest.approx(0.5)
        assert 0 < factors[-1] < 0.02


@pytest.mark.parametrize("steps", [1, 2])
def test_the_shortest_runs_have_a_rate(steps: int) -> None:
    assert all(rate_factor(step, steps, 0.05, "cosine") > 0 for step in range(steps))
