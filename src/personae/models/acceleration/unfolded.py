"""Convolutions as one matrix product with the weight as it lies in memory.

A weight (out, in, kernel...) is a matrix of out rows, and the inputs that each place of the result
sees are the columns of another one (im2col). The product is the result, channels first, and nothing
of the weight has to be laid out anew.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_input

# Places of a result up to which the product is quicker than torch's convolution, which lays the
# weight out anew at each call. Of the kernels of Stable Diffusion 1.5's U-Net in bf16 on two cores
# (benchmarks/convolutions.py): 0.1 to 0.3 of the time at 16 to 128 places, 0.4 to 0.6 at 256, 1.4
# at 512; of the gradient of the input, for which the weight has to be turned, 0.2 to 0.7 at 16 to
# 128, 0.5 to 1.2 at 256.
MOST_PLACES = 256
MOST_PLACES_BACK = 64


def places(shape: torch.Size, module: nn.Conv2d) -> int:
    """Return the places of the result for an input of `shape` (b, c, h, w), over the batch."""
    height, width = _result(shape, module)
    return shape[0] * height * width


def convolve(module: nn.Conv2d, x: Tensor) -> Tensor:
    """Return the convolution of `x` (b, c, h, w) by the quicker of both ways."""
    if places(x.shape, module) > MOST_PLACES:
        laid = module.stride, _pair(module.padding), module.dilation
        return functional.conv2d(x, module.weight, module.bias, *laid)
    height, width = _result(x.shape, module)
    columns = _columns(module, x, height, width)
    weight = module.weight.flatten(1)
    if module.bias is None:
        y = weight @ columns
    else:
        y = torch.addmm(module.bias[:, None], weight, columns)
    return y.view(-1, len(x), height, width).transpose(0, 1).contiguous()


def input_gradient(
    module: nn.Conv2d, weight: Tensor, gradient: Tensor, shape: torch.Size
) -> Tensor:
    """Return the gradient of an input of `shape`, of that of the result, by the quicker way."""
    if places(shape, module) > MOST_PLACES_BACK:
        laid = module.stride, _pair(module.padding), module.dilation
        result: Tensor = conv2d_input(shape, weight, gradient, *laid)
        return result
    columns = weight.flatten(1).t() @ _rows(gradient)
    return _summed(module, columns, shape, gradient.shape[2:])


def weight_gradient(module: nn.Conv2d, x: Tensor, gradient: Tensor) -> Tensor:
    """Return the gradient of the weight, of that of the result for `x`, by one product."""
    seen = _columns(module, x, *gradient.shape[2:])
    return (_rows(gradient) @ seen.t()).view(-1, x.shape[1], *module.kernel_size)


def _rows(result: Tensor) -> Tensor:
    """Return a result (b, out, h, w) as (out, batch x places)."""
    return result.transpose(0, 1).reshape(result.shape[1], -1)


def _pair(setting: str | tuple[int, ...]) -> tuple[int, int]:
    """Return what a setting of a Conv2d is for height and width; padding by name has no numbers."""
    if isinstance(setting, str):
        raise ValueError(f"padding is '{setting}'; expected a number for height and for width")
    height, width = setting
    return height, width


def _result(shape: torch.Size, module: nn.Conv2d) -> tuple[int, int]:
    """Return height and width: floor((n + 2p - d (k - 1) - 1) / s) + 1."""
    height, width = (
        (size + 2 * edge - reach * (kernel - 1) - 1) // step + 1
        for size, edge, reach, kernel, step in zip(
            shape[2:],
            _pair(module.padding),
            module.dilation,
            module.kernel_size,
            module.stride,
            strict=True,
        )
    )
    return height, width


def _columns(module: nn.Conv2d, x: Tensor, height: int, width: int) -> Tensor:
    """Return what each place sees, (channels x kernel, batch x places)."""
    (top, left), (down, right) = _pair(module.padding), module.stride
    (below, beside), (rows, columns) = module.dilation, module.kernel_size
    if top or left:
        x = functional.pad(x, (left, left, top, top))
    batch, channel, line, place = x.stride()
    seen = x.as_strided(
        (x.shape[1], rows, columns, len(x), height, width),
        (channel, below * line, beside * place, batch, down * line, right * place),
    )
    return seen.reshape(x.shape[1] * rows * columns, -1)


def _summed(module: nn.Conv2d, columns: Tensor, shape: torch.Size, places: torch.Size) -> Tensor:
    """Return (b, c, h, w): each input's share of all the places that saw it, added in float32."""
    batch, channels, height, width = shape
    (top, left), (down, right) = _pair(module.padding), module.stride
    (below, beside), kernel = module.dilation, module.kernel_size
    parts = columns.view(channels, *kernel, batch, *places)
    whole = torch.zeros(channels, batch, height + 2 * top, width + 2 * left)
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            y, x = i * below, j * beside
            whole[:, :, y : y + down * places[0] : down, x : x + right * places[1] : right] += (
                parts[:, i, j]
            )
    inner = whole[:, :, top : top + height, left : left + width]
    return inner.transpose(0, 1).to(columns.dtype, memory_format=torch.contiguous_format)
