"""Tiled decoding: small pictures are decoded as ever, large ones nearly so, and seams vanish."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from personae.generation.decoding import decode, decode_tiled
from personae.models.family import Family


def doubled(latents: Tensor) -> Tensor:
    """Return each latent as a block of 2 x 2 pixels: what a decoder without a context does."""
    return latents.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


def test_a_picture_that_fits_into_a_tile_is_decoded_to_the_same_bits(sd1: Family) -> None:
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(decode(sd1, latents, 64), decode(sd1, latents))
    assert torch.equal(decode(sd1, latents, 128), decode(sd1, latents))


@pytest.mark.parametrize("size", [(8, 8), (9, 20), (16, 5), (31, 17)])
@pytest.mark.parametrize("side", [4, 8])
def test_every_pixel_is_covered_and_blended_to_what_it_was(
    size: tuple[int, int], side: int
) -> None:
    latents = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(decode_tiled(doubled, latents, side), doubled(latents))


def test_no_more_than_a_tile_is_decoded_at_once() -> None:
    seen = []

    def watched(latents: Tensor) -> Tensor:
        seen.append(tuple(latents.shape[2:]))
        return doubled(latents)

    decode_tiled(watched, torch.zeros(1, 3, 40, 9), 16)
    assert set(seen) == {(16, 9)}


def test_where_tiles_disagree_there_is_a_ramp_and_no_step() -> None:
    values = iter((0.0, 1.0))
    made = decode_tiled(
        lambda tile: torch.full_like(tile, next(values)), torch.zeros(1, 1, 8, 14), 8
    )
    row = made[0, 0, 4]
    assert row[0] == 0
    assert row[-1] == 1
    assert (row.diff() >= 0).all()
    assert row.diff().max() < 1


def test_a_large_picture_in_tiles_is_nearly_the_one_decoded_whole(sd1: Family) -> None:
    latents = torch.randn(1, 4, 32, 16, generator=torch.Generator().manual_seed(0))
    whole, tiled = decode(sd1, latents), decode(sd1, latents, 128)
    assert tiled.shape == whole.shape
    assert not torch.equal(tiled, whole)
    assert (tiled - whole).abs().mean() < 0.1 * whole.std()
