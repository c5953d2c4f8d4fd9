"""From latents to images; large pictures in overlapping tiles, so that memory stays that of one.

Where tiles overlap their pixels are blended along a linear ramp, as in diffusers' tiled decoding.
A tile sees its own surroundings alone, so a tiled picture differs a little from one decoded whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor

from personae.core.devices import HOST
from personae.models.family import Family

OVERLAP = 0.25  # share of a tile; the default of diffusers' AutoencoderKL


def decode_tiled(decode: Callable[[Tensor], Tensor], latents: Tensor, side: int) -> Tensor:
    """Return the pixels (b, 3, H, W) float32 of `latents` (b, c, h, w), tile by tile.

    Args:
        decode: latents of a tile to its pixels.
        latents: of the whole pictures; what fits into one tile is decoded at once.
        side: of a tile, in latents.
    """
    high, wide = (min(side, size) for size in latents.shape[2:])
    if (high, wide) == latents.shape[2:]:
        return decode(latents).float()
    total, weights = torch.empty(()), torch.empty(())  # until the first tile shows how large
    for top in _starts(latents.shape[2], high):
        for left in _starts(latents.shape[3], wide):
            pixels = decode(latents[..., top : top + high, left : left + wide]).float()
            factor = pixels.shape[-1] // wide
            if not total.dim():
                size = [factor * places for places in latents.shape[2:]]
                total = pixels.new_zeros(*pixels.shape[:2], *size)
                weights = pixels.new_zeros(size)
            ramp = _ramp(high, factor)[:, None] * _ramp(wide, factor)[None]
            down = slice(top * factor, (top + high) * factor)
            right = slice(left * factor, (left + wide) * factor)
            total[..., down, right] += pixels * ramp.to(pixels)
            weights[down, right] += ramp.to(pixels)
    return total / weights


def _starts(length: int, side: int) -> list[int]:
    """Return where tiles begin: evenly, each overlapping the next by a quarter or more."""
    if length <= side:
        return [0]
    step = max(1, side - round(side * OVERLAP))
    count = math.ceil((length - side) / step) + 1
    return [round(i * (length - side) / (count - 1)) for i in range(count)]


def _ramp(side: int, factor: int) -> Tensor:
    """Return the weight of each pixel along a tile: rising over the overlap, then falling."""
    places = torch.arange(side * factor)
    reach = max(1, round(side * OVERLAP) * factor)
    return ((torch.minimum(places, places.flip(0)) + 1) / reach).clamp(max=1)


@torch.no_grad()
def decode(base: Family, latents: Tensor, tile: int | None = None) -> Tensor:
    """Return pixels (b, 3, H, W) in [-1, 1]; one picture at a time, so memory stays low.

    Args:
        base: whose autoencoder is used.
        latents: (b, c, h, w), scaled.
        tile: side in pixels of overlapping tiles to decode larger pictures in; None = whole.

    Raises:
        UsageError: the side is no multiple the base can draw.
    """
    side = max(latents.shape[2:]) if tile is None else base.latent_shape(tile, tile)[1]
    return torch.cat([decode_tiled(base.decode_image, row[None], side) for row in latents])


def to_images(pixels: Tensor) -> list[Image.Image]:
    """Return PIL images of pixels (b, 3, H, W) in [-1, 1]."""
    scaled = ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return [Image.fromarray(row) for row in scaled.permute(0, 2, 3, 1).to(HOST).numpy()]
