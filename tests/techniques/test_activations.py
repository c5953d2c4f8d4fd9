"""Activations by name: each keeps the shape of its input, and is known at zero."""

from __future__ import annotations

import pytest
import torch

from personae.techniques.activations import ACTIVATIONS, at_zero


@pytest.mark.parametrize("name", [name for name, kind in ACTIVATIONS.items() if kind])
def test_an_activation_keeps_shapes_and_pictures_of_a_batch_apart(name: str) -> None:
    x = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(1))
    activate = ACTIVATIONS[name]().eval()
    both = activate(x)
    assert both.shape == x.shape
    torch.testing.assert_close(both[:1], activate(x[:1]))


@pytest.mark.parametrize(
    ("name", "value", "slope"),
    [("linear", 0, 1), ("relu", 0, 0), ("sigmoid", 0.5, 0.25), ("tanh", 0, 1), ("silu", 0, 0.5)],
)
def test_value_and_slope_at_zero(name: str, value: float, slope: float) -> None:
    assert at_zero(name) == pytest.approx((value, slope))
