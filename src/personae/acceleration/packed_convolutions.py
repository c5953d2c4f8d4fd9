"""Convolutions whose frozen weights are kept in the layout the processor's kernels want."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from personae.acceleration.base import Acceleration, Packs, frozen, has_packing, needs_gradient
from personae.acceleration.unfolding import convolve, input_gradient, places
from personae.devices import HOST
from personae.families.base import Family
from personae.forwards import Forward

# Places up to which the gradient is computed from packed weights. Laying a weight out anew moves
# each number two or three times through memory, which at 20 GB/s and 230 GFLOP/s (one core, bf16)
# takes as long as the multiplications of about 35 places. Measured on kernels of 96 to 1280
# channels: packed takes 0.5 to 0.7 of the time at 256 places, 0.75 to 0.85 at 1024, 0.9 at 2048,
# which does not pay for a second copy of the weight.
MOST_PLACES = 1024


class PackedConvolutions(Acceleration):
    """Weights packed once for the gradient of the input; forward, products with the plain weight.

    Torch hands oneDNN a plain weight, which is laid out anew at every call; on small maps that
    takes longer than the convolution. The gradient of the input is a transposed convolution of the
    weight, which gets a packed form when it is first asked for. It is laid out for the first shape
    that comes; another shape, for which oneDNN would want it otherwise, is right and a little
    slower. Forward, a product with the plain weight is as quick as a packed one (`unfolding`). The
    input is not kept for the backward pass, since a frozen weight needs no gradient.
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
            "_reorder_convolution_transpose_weight",
            "_convolution_transpose_pointwise",
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
    return _WithGradient.apply(x, module, packs) if needs_gradient(x) else convolve(module, x)


class _WithGradient(torch.autograd.Function):
    """The convolution and the gradient of its input, nothing kept in between."""

    @staticmethod
    def forward(context: Any, x: Tensor, module: nn.Conv2d, packs: Packs) -> Tensor:
        context.module, context.packs, context.shape = module, packs, x.shape
        return convolve(module, x)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        module, shape = context.module, context.shape
        if places(shape, module) > MOST_PLACES:
            return input_gradient(module, gradient, shape), None, None
        return _transposed(module, context.packs, gradient, shape), None, None


def _transposed(module: nn.Conv2d, packs: Packs, gradient: Tensor, shape: torch.Size) -> Tensor:
    """Return the gradient of an input of `shape`, of that of the output."""
    stride, padding, dilation = module.stride, module.padding, module.dilation
    # What strides left out at the far edges: a convolution gives floor((n + 2p - r - 1) / s) + 1.
    rest = [
        size + 2 * edge - reach * (kernel - 1) - 1 - step * (places - 1)
        for size, edge, reach, kernel, step, places in zip(
            shape[2:],
            padding,
            dilation,
            module.kernel_size,
            stride,
            gradient.shape[2:],
            strict=True,
        )
    ]

    def pack(weight: Tensor) -> Tensor:
        reorder = torch.ops.mkldnn._reorder_convolution_transpose_weight
        return reorder(weight, padding, rest, stride, dilation, 1, list(gradient.shape))

    weight = packs.get("gradient", pack)
    transpose = torch.ops.mkldnn._convolution_transpose_pointwise
    way = padding, rest, stride, dilation, 1
    return transpose(gradient, weight, None, *way, "none", [], "").contiguous()
