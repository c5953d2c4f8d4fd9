"""3 x 3 convolutions in a quarter of the multiplications, for processors without bfloat16 (Lavin and Gray 2015).

    python winograd.py         compares results and times with torch's own convolution

A tile of 4 x 4 outputs takes 36 products instead of 144, one of 2 x 2 takes 16 instead of 36: in a transformed space
that one matrix product for each place in a tile leads through, forward and backward. The transforms are C, compiled
when first needed; where that fails torch's convolution stays.
"""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
import time
import types
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from data import DEVICE, PRODUCTS, work_folder

SOURCE = Path(__file__).with_name("winograd.c")
LANES = 8
"""Channels that the C code handles at once; counts of channels have to be multiples of it."""
APART = 16
"""Values between two planes, lest all planes fall into the same few lines of the cache."""
LEFT = {
    4: [
        [1 / 4, 0, 0],
        [-1 / 6] * 3,
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
    2: [[1, 0, 0], [1 / 2] * 3, [1 / 2, -1 / 2, 1 / 2], [0, 0, 1]],
}
KERNEL = {tile: torch.kron(torch.tensor(rows), torch.tensor(rows)) for tile, rows in LEFT.items()}
"""Transforms of a kernel, for tiles of 4 x 4 and of 2 x 2: places in a tile x 9."""


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled transforms; nothing where there is no compiler."""
    target = work_folder() / f"winograd-{int(SOURCE.stat().st_mtime)}.so"
    part = target.with_suffix(f".{os.getpid()}")
    options = ["-O3", "-march=native", "-fno-trapping-math", "-shared", "-fPIC"]
    try:
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cc", *options, "-o", part, SOURCE], check=True, stderr=subprocess.DEVNULL)
            part.replace(target)
        return ctypes.CDLL(str(target))
    except (OSError, subprocess.CalledProcessError):
        return None


def planes(count: int, rows: int, columns: int) -> torch.Tensor:
    """Room for `count` matrices."""
    step = rows * columns + APART
    return torch.empty(count * step).as_strided((count, rows, columns), (step, columns, 1))


def product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """The product of each pair of matrices."""
    return torch.bmm(left, right, out=planes(len(left), left.shape[1], right.shape[2]))


def call(name: str, *arguments: torch.Tensor | int | None) -> None:
    """Call a compiled transform."""
    given = [
        ctypes.c_long(a) if isinstance(a, int) else ctypes.c_void_p(a.data_ptr() if a is not None else 0)
        for a in arguments
    ]
    getattr(library(), name)(*given)


def gathered(name: str, picture: torch.Tensor, tile: int) -> torch.Tensor:
    """Transformed tiles of B x C x S x S: places in a tile x tiles x C."""
    picture = picture.contiguous(memory_format=torch.channels_last)
    count, channels, side, _ = picture.shape
    out = planes((tile + 2) ** 2, count * (side // tile) ** 2, channels)
    call(f"{name}{tile}_gather", picture, out, count, side, channels, out.stride(0))
    return out


def spread(name: str, tiles: torch.Tensor, count: int, side: int, tile: int, bias: torch.Tensor | None) -> torch.Tensor:
    """The way back, to B x C x S x S; windows that overlap are added."""
    room = torch.zeros if name == "input" else torch.empty
    picture = room(count, side, side, tiles.shape[2])
    call(f"{name}{tile}_spread", tiles, picture, bias, count, side, tiles.shape[2], tiles.stride(0))
    return picture.permute(0, 3, 1, 2)


class Winograd(torch.autograd.Function):
    """A convolution with a 3 x 3 kernel, stride 1, padding 1, over square pictures of even side, in float32."""

    @staticmethod
    def forward(context, picture: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Transform, multiply, transform back."""
        tile = 2 if picture.shape[-1] % 4 else 4
        seen = gathered("input", picture, tile)
        kernels = (KERNEL[tile] @ weight.permute(2, 3, 0, 1).reshape(9, -1)).view(-1, *weight.shape[:2])
        context.save_for_backward(seen, kernels)
        context.count, context.side, context.tile = len(picture), picture.shape[-1], tile
        return spread("output", product(seen, kernels.mT), len(picture), picture.shape[-1], tile, bias)

    @staticmethod
    def backward(context, gradient: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor, torch.Tensor]:
        """The same maps transposed."""
        (seen, kernels), tile = context.saved_tensors, context.tile
        wanted, picture = gathered("output", gradient, tile), None
        if context.needs_input_grad[0]:
            picture = spread("input", product(wanted, kernels), context.count, context.side, tile, None)
        weight = KERNEL[tile].T @ torch.bmm(wanted.mT, seen).flatten(1)
        return picture, weight.view(3, 3, *kernels.shape[1:]).permute(2, 3, 0, 1), gradient.sum((0, 2, 3))


def _forward(convolution: nn.Conv2d, picture: torch.Tensor) -> torch.Tensor:
    side = picture.shape[-1]
    if side % 2 or picture.shape[-2] != side or not convolution.weight.requires_grad:
        return F.conv2d(picture, convolution.weight, convolution.bias, padding=1)
    return Winograd.apply(picture, convolution.weight, convolution.bias)


def fits(convolution: nn.Conv2d) -> bool:
    """Whether a convolution is one that can be done this way."""
    shape = convolution.kernel_size, convolution.stride, convolution.padding
    channels = convolution.in_channels, convolution.out_channels
    return shape == ((3, 3), (1, 1), (1, 1)) and not any(c % LANES for c in channels) and convolution.bias is not None


def use_winograd(model: nn.Module) -> None:
    """Let a model's 3 x 3 convolutions work this way while it trains, where that is faster."""
    if DEVICE.type != "cpu" or PRODUCTS is not torch.float32 or library() is None:
        return
    model.to(memory_format=torch.channels_last)
    for part in model.modules():
        if isinstance(part, nn.Conv2d) and fits(part):
            part.forward = types.MethodType(_forward, part)


def main() -> None:
    """Compare with torch's convolution; ends the program where results differ."""
    torch.set_num_threads(1)
    for channels, side in ((96, 16), (160, 8), (256, 4), (288, 2)):
        own = nn.Conv2d(channels, 2 * channels, 3, padding=1).to(memory_format=torch.channels_last)
        picture = torch.randn(32, channels, side, side).to(memory_format=torch.channels_last).requires_grad_()
        found = []
        for function in (own, lambda x, own=own: Winograd.apply(x, own.weight, own.bias)):
            for _ in range(2):  # the first time prepares
                began, picture.grad, own.weight.grad, own.bias.grad = time.process_time(), None, None, None
                drawn = function(picture)
                drawn.square().sum().backward()
            found.append((drawn.detach(), picture.grad, own.weight.grad, own.bias.grad, time.process_time() - began))
        apart = max(float((b - a).norm() / a.norm()) for a, b in zip(found[0][:4], found[1][:4], strict=True))
        print(f"{channels} channels, {side} x {side}: {found[0][4]:.3f} s and {found[1][4]:.3f} s, apart {apart:.0e}")
        if apart > 1e-4:
            raise SystemExit("not the same convolution")


if __name__ == "__main__":
    main()
