"""bf16 weights that lose no small update: right on average, or compensated."""

from __future__ import annotations

import torch

from personae.core.devices import HOST
from personae.training.optim.rounding import CHUNK, noise, read, stochastically, write

UPDATES, SIZE = 1000, 1e-6


def test_stochastic_rounding_goes_to_the_two_neighbours_and_is_right_on_average() -> None:
    value = torch.tensor([0.7501, -1.3e-5, 3.14159, -200.3])
    drawn = torch.stack(
        [stochastically(value.clone(), noise(4, HOST, 0, "test", i)) for i in range(4000)]
    )
    for column, exact in zip(drawn.T, value, strict=True):
        low, high = column.min(), column.max()
        assert len(column.unique()) == 2
        assert low < exact < high
        spacing = high - low
        assert abs(column.mean() - exact) < 5 * spacing / 2 / 4000**0.5


def test_what_bf16_holds_exactly_is_never_moved() -> None:
    value = torch.randn(1000).to(torch.bfloat16).float()
    assert torch.equal(stochastically(value.clone(), noise(1000, HOST, 1)), value)


def test_noise_depends_on_its_stream_alone_and_fills_its_range() -> None:
    one, two, other = noise(CHUNK, HOST, 3, "a"), noise(CHUNK, HOST, 3, "a"), noise(9, HOST, 3, "b")
    assert torch.equal(one, two)
    assert not torch.equal(one[:9], other)
    assert 0 <= one.min() < 64
    assert 2**16 - 64 <= one.max() < 2**16
    assert len(noise(10 * CHUNK, HOST, 0)) == CHUNK


def test_kahan_and_stochastic_sums_of_millionths_follow_float32() -> None:
    start = torch.linspace(0.008, 0.015, 512).to(torch.bfloat16)
    exact = start.float() - UPDATES * SIZE  # what a delta on a weight is like
    nearest, kahan, drawn = start.clone(), start.clone(), start.clone()
    compensation = torch.zeros_like(start)
    for i in range(UPDATES):
        write(nearest, read(nearest, None).sub_(SIZE), None, None)
        write(kahan, read(kahan, compensation).sub_(SIZE), None, compensation)
        write(drawn, read(drawn, None).sub_(SIZE), noise(512, HOST, 0, i), None)
    assert torch.equal(nearest, start)  # every update was lost
    torch.testing.assert_close(read(kahan, compensation), exact, rtol=0, atol=5e-5)
    assert abs((drawn.float() - exact).mean()) < 1e-4
