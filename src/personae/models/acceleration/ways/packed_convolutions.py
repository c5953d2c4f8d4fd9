"""Convolutions whose frozen weights are kept in the layout the processor's kernels want."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from personae.models.acceleration import unfolded
from personae.models.acceleration.convolutions import QuickConvolutions
from personae.models.acceleration.packs import Packs, has_packing
from personae.models.family import Family

# Laying a weight out anew moves each number two or three times through memory, which at 20 GB/s
# and 230 GFLOP/s (one core, bf16) takes as long as the multiplications of about 35 places. Measured
# on kernels of 96 to 1280 channels: packed takes 0.5 to 0.7 of the time at 256 places, 0.75 to 0.85
# at 1024, 0.9 at 2048, which does not pay for a second copy of the weight.
MOST_PLACES = 1024


class PackedConvolutions(QuickConvolutions):
    """oneDNN convolutions on weights packed once, forward and for the gradient of the input.

    Torch hands oneDNN a plain weight, which is laid out anew at every call; on small maps that
    takes longer than the convolution. The gradient of the input is a transposed convolution of the
    same weight, which gets a second packed form when it is first asked for. Both are laid out for
    the first shape that comes; another shape, for which oneDNN would want them otherwise, is right
    and a little slower. Forward on the smallest maps, which have the largest weights, a product
    with the plain weight is as quick (`unfolded`), and nothing is packed.
    """

    name = "packed_convolutions"
    title = "packed convolutions"
    source = "https://uxlfoundation.github.io/oneDNN/dev_guide_understanding_memory_formats.html"
    copies = True

    @classmethod
    def fits(cls, base: Family) -> bool:
        """Serve convolutions on the processor, where torch brings oneDNN."""
        return bool(cls.modules(base)) and has_packing(
            base,
            "_reorder_convolution_weight",
            "_convolution_pointwise",
            "_reorder_convolution_transpose_weight",
            "_convolution_transpose_pointwise",
        )

    def convolve(self, module: nn.Conv2d, packs: Packs, x: Tensor) -> Tensor:
        """Return the convolution of `x`."""
        if unfolded.MOST_PLACES < unfolded.places(x.shape, module) <= MOST_PLACES:
            return packed(module, packs, x)
        return unfolded.convolve(module, x)

    def input_gradient(
        self, module: nn.Conv2d, packs: Packs, gradient: Tensor, shape: torch.Size
    ) -> Tensor:
        """Return the gradient of an input of `shape`."""
        if unfolded.places(shape, module) <= MOST_PLACES:
            return packed_gradient(module, packs, gradient, shape)
        return unfolded.input_gradient(module, module.weight, gradient, shape)


def packed(module: nn.Conv2d, packs: Packs, x: Tensor) -> Tensor:
    """Return the convolution of `x` by a packed weight."""
    form = module.padding, module.stride, module.dilation

    def pack(weight: Tensor) -> Tensor:
        reorder = torch.ops.mkldnn._reorder_convolution_weight
        packed: Tensor = reorder(weight, *form, 1, list(x.shape))
        return packed

    convolve = torch.ops.mkldnn._convolution_pointwise
    y: Tensor = convolve(x, packs.get("forward", pack), module.bias, *form, 1, "none", [], "")
    # It comes with channels last, in which torch's group norm is many times slower.
    return y.contiguous()


def packed_gradient(module: nn.Conv2d, packs: Packs, gradient: Tensor, shape: torch.Size) -> Tensor:
    """Return the gradient of an input of `shape`, of that of the output, by a packed weight."""
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
        packed: Tensor = reorder(weight, padding, rest, stride, dilation, 1, list(gradient.shape))
        return packed

    weight = packs.get("gradient", pack)
    transpose = torch.ops.mkldnn._convolution_transpose_pointwise
    way = padding, rest, stride, dilation, 1
    result: Tensor = transpose(gradient, weight, None, *way, "none", [], "")
    return result.contiguous()
