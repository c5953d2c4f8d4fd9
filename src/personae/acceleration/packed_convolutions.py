"""Convolutions whose frozen weights are kept in the layout the processor's kernels want."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from personae.acceleration.base import Acceleration, Packs, frozen, has_packing, needs_gradient
from personae.devices import HOST
from personae.families.base import Family
from personae.forwards import Forward

# Laying a weight out anew moves each number two or three times through memory, which at 20 GB/s
# and 230 GFLOP/s (one core, bf16) takes as long as the multiplications of about 35 places. Beyond
# this many places the gain is below a tenth and does not pay for a second copy of the weight.
MOST_PLACES = 384


class PackedConvolutions(Acceleration):
    """oneDNN convolutions on weights packed once, forward and for the gradient of the input.

    Torch hands oneDNN a plain weight, which is laid out anew at every call; on small maps that
    takes longer than the convolution. The gradient of the input of a convolution of stride 1 is
    itself a convolution, of the weight turned by 180 degrees with its channels swapped, and gets
    a packed weight of its own when it is first asked for. The input is not kept for the backward
    pass, since a frozen weight needs no gradient.
    """

    name = "packed_convolutions"
    title = "packed convolutions"
    source = "https://uxlfoundation.github.io/oneDNN/dev_guide_understanding_memory_formats.html"
    part = "convolutions"
    tolerance = 1e-5
    copies = True

    @classmethod
    def fits(cls, base: Family) -> bool:
        """Serve on the processor, where torch brings oneDNN."""
        return base.device.type == HOST.type and has_packing(
            "_reorder_convolution_weight", "_convolution_pointwise"
        )

    @classmethod
    def modules(cls, base: Family) -> dict[str, nn.Module]:
        """Return the denoiser's plain two-dimensional convolutions."""
        return {
            name: module
            for name, module in base.denoiser.named_modules()
            if isinstance(module, nn.Conv2d)
            and module.groups == 1
            and module.padding_mode == "zeros"
            and not isinstance(module.padding, str)
        }

    def forward_for(self, module: nn.Conv2d, plain: Forward) -> Forward:
        """Return the packed forward of one convolution."""
        return partial(_forward, module, plain, Packs(module))


def _forward(module: nn.Conv2d, plain: Forward, packs: Packs, x: Tensor) -> Tensor:
    if not frozen(module) or x.dtype != module.weight.dtype or x.dim() != 4:
        return plain(x)
    if needs_gradient(x):
        return _WithGradient.apply(x, module, packs)
    return _convolve(module, packs, x)


def _convolve(module: nn.Conv2d, packs: Packs, x: Tensor) -> Tensor:
    shape = module.stride, module.padding, module.dilation
    if _places(x, module.stride) > MOST_PLACES:
        return functional.conv2d(x, module.weight, module.bias, *shape)
    weight = packs.get(("forward", *x.shape), partial(_pack, *shape, x.shape))
    return _packed(x, weight, module.bias, *shape)


def _places(x: Tensor, stride: tuple[int, ...]) -> int:
    return x.shape[0] * x.shape[2] * x.shape[3] // (stride[0] * stride[1])


def _pack(stride: Any, padding: Any, dilation: Any, shape: Any, weight: Tensor) -> Tensor:
    reorder = torch.ops.mkldnn._reorder_convolution_weight
    return reorder(weight, padding, stride, dilation, 1, list(shape))


def _packed(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any
) -> Tensor:
    convolve = torch.ops.mkldnn._convolution_pointwise
    y = convolve(x, weight, bias, padding, stride, dilation, 1, "none", [], "")
    # It comes with channels last, in which torch's group norm is many times slower.
    return y.contiguous()


def _turned(weight: Tensor) -> Tensor:
    return weight.transpose(0, 1).flip(2, 3).contiguous()


class _WithGradient(torch.autograd.Function):
    """The convolution and the gradient of its input, nothing kept in between."""

    @staticmethod
    def forward(context: Any, x: Tensor, module: nn.Conv2d, packs: Packs) -> Tensor:
        context.module, context.packs, context.shape = module, packs, x.shape
        return _convolve(module, packs, x)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        module, shape = context.module, context.shape
        reach = [
            dilation * (size - 1) - padding
            for size, padding, dilation in zip(
                module.kernel_size, module.padding, module.dilation, strict=True
            )
        ]
        small = shape[0] * shape[2] * shape[3] <= MOST_PLACES
        if not small or module.stride != (1, 1) or min(reach) < 0:
            laid = module.stride, module.padding, module.dilation
            return torch.nn.grad.conv2d_input(shape, module.weight, gradient, *laid), None, None
        laid = (1, 1), tuple(reach), module.dilation
        pack = partial(_pack, *laid, gradient.shape)
        weight = context.packs.get(
            ("gradient", *gradient.shape), lambda weight: pack(_turned(weight))
        )
        return _packed(gradient, weight, None, *laid), None, None
