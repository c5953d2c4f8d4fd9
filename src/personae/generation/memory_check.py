"""Whether the pictures asked for can fit the memory of the machine, before anything is drawn."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from personae.core.memory import free_bytes
from personae.core.units import size as shown
from personae.errors import UsageError
from personae.models.family import Family

_COLOURS = 3
_FLOAT = 4  # bytes
_MAPS = 2  # what goes into a layer and what comes out


def least_bytes(base: Family, rows: int, size: tuple[int, int], tile: int | None = None) -> int:
    """Return memory in bytes below which drawing surely fails; what it needs is several times that.

    Counted are the input and output of one layer: of the denoiser's first convolution for all rows,
    or of the autoencoder's last for one picture (or tile), with the pixels of all.

    Args:
        base: draws.
        rows: of a call of the denoiser, those of guidance among them.
        size: width and height in pixels.
        tile: side in pixels of what is decoded at once.
    """
    _, high, wide = base.latent_shape(*size)
    first = next(iter(_convolutions([base.denoiser])), None)
    last = [c for c in _convolutions(base.components.autoencoder.values()) if _draws(c)]
    inside = first.out_channels * high * wide * rows if first else 0
    whole = size[0] * size[1]
    part = min(size[0], tile or size[0]) * min(size[1], tile or size[1])
    decoding = last[-1].in_channels * part if last else 0
    width = base.dtype.itemsize
    return max(
        _MAPS * inside * width, _MAPS * decoding * width + rows * _COLOURS * whole * _FLOAT // 2
    )


def check_room(base: Family, rows: int, size: tuple[int, int], tile: int | None = None) -> None:
    """Refuse pictures that surely do not fit; arguments are those of `least_bytes`.

    Raises:
        UsageError: says the least that is needed, and what is free.
    """
    free, least = free_bytes(base.device), least_bytes(base, rows, size, tile)
    if free is not None and least > free:
        raise UsageError(
            f"pictures of {size[0]} x {size[1]}, {rows} rows at once, need more than "
            f"{shown(least)} of memory, and {shown(free)} are free; draw smaller or fewer at once "
            "(--batch-size, --rows-at-once), or in tiles (--tile)"
        )


def _convolutions(networks: Iterable[nn.Module]) -> Iterable[nn.Conv2d]:
    return (
        part for network in networks for part in network.modules() if isinstance(part, nn.Conv2d)
    )


def _draws(convolution: nn.Conv2d) -> bool:
    return convolution.out_channels == _COLOURS
