"""Convolutions on small maps by matrix products, without a second copy of any weight."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from personae.acceleration.base import Acceleration, frozen, needs_gradient
from personae.acceleration.unfolding import convolve, input_gradient
from personae.devices import HOST
from personae.families.base import Family
from personae.forwards import Forward


class MatmulConvolutions(Acceleration):
    """One product for the result and one for the gradient of the input, where maps are small.

    The input is not kept for the backward pass, since a frozen weight needs no gradient.
    """

    name = "matmul_convolutions"
    title = "convolutions by matrix products"
    source = "https://hal.inria.fr/inria-00112631, section 2.1: unrolling convolutions"
    part = "convolutions"
    tolerance = 1e-5
    frugal = True

    @classmethod
    def fits(cls, base: Family) -> bool:
        """Serve on the processor; a GPU's library does the like by itself."""
        return base.device.type == HOST.type

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
        """Return the forward of one convolution."""
        return partial(_forward, module, plain)


def _forward(module: nn.Conv2d, plain: Forward, x: Tensor) -> Tensor:
    if not frozen(module) or x.dtype != module.weight.dtype or x.dim() != 4:
        return plain(x)
    return _WithGradient.apply(x, module) if needs_gradient(x) else convolve(module, x)


class _WithGradient(torch.autograd.Function):
    """The convolution and the gradient of its input, nothing kept in between."""

    @staticmethod
    def forward(context: Any, x: Tensor, module: nn.Conv2d) -> Tensor:
        context.module, context.shape = module, x.shape
        return convolve(module, x)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return input_gradient(context.module, gradient, context.shape), None
