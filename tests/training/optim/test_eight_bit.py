"""8-bit states: right on average, close relative to their block, never zero where divided by."""

from __future__ import annotations

import pytest
import torch

from personae.training.optim.eight_bit import (
    BLOCK,
    FIRST_MOMENT,
    SECOND_MOMENT,
    CodeBook,
    Quantised,
)

HOST = torch.device("cpu")


def uniform(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def sample(book: CodeBook) -> torch.Tensor:
    values = torch.randn(3, BLOCK, generator=torch.Generator().manual_seed(5)) * 1e-4
    return values if book is FIRST_MOMENT else values.square()


@pytest.mark.parametrize("book", [FIRST_MOMENT, SECOND_MOMENT])
def test_codes_stand_for_numbers_near_by_and_right_on_average(book: CodeBook) -> None:
    values = sample(book)
    top = values.abs().amax(1, keepdim=True)
    mean = torch.zeros_like(values)
    for seed in range(400):
        decoded = book.decode(*book.encode(values, uniform(3, BLOCK, seed=seed)))
        assert ((decoded - values).abs() <= top * 2 * book.power / book.highest).all()
        mean += decoded / 400
    assert ((mean - values).abs() / top).max() < 5e-3


def test_a_second_moment_is_never_zero_in_a_block_that_has_any() -> None:
    values = torch.zeros(1, BLOCK)
    values[0, 0] = 1.0
    assert (SECOND_MOMENT.decode(*SECOND_MOMENT.encode(values, uniform(1, BLOCK))) > 0).all()


def test_zeros_stay_zeros() -> None:
    for book in (FIRST_MOMENT, SECOND_MOMENT):
        assert not book.decode(*book.encode(torch.zeros(2, BLOCK), uniform(2, BLOCK))).any()


def test_a_decay_smaller_than_a_level_still_happens() -> None:
    codes, scales = Quantised.zeros(SECOND_MOMENT, BLOCK, HOST)
    kept, value = Quantised(SECOND_MOMENT, codes, scales), torch.full((BLOCK,), 0.05)
    value[0] = 1.0  # gives the scale and does not decay
    kept.write(0, value, uniform(BLOCK))
    for seed in range(200):
        now = kept.read(0, BLOCK)
        now[1:] *= 0.99
        kept.write(0, now, uniform(BLOCK, seed=seed))
    assert kept.read(0, BLOCK)[1:].mean() == pytest.approx(0.05 * 0.99**200, rel=0.25)


def test_a_length_that_fills_no_block_is_kept_whole() -> None:
    book, values = FIRST_MOMENT, torch.randn(BLOCK + 37)
    kept = Quantised(book, *Quantised.zeros(book, len(values), HOST))
    kept.write(0, values, uniform(len(values)))
    torch.testing.assert_close(kept.read(0, len(values)), values, rtol=0, atol=0.06)
