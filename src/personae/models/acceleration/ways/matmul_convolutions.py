"""Convolutions on small maps by matrix products, without a second copy of any weight."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from personae.core.devices import HOST
from personae.models.acceleration import unfolded
from personae.models.acceleration.convolutions import QuickConvolutions
from personae.models.acceleration.packs import Packs
from personae.models.family import Family


class MatmulConvolutions(QuickConvolutions):
    """One product for the result and one for the gradient of the input, where maps are small."""

    name = "matmul_convolutions"
    title = "convolutions by matrix products"
    source = "https://hal.inria.fr/inria-00112631, section 2.1: unrolling convolutions"
    frugal = True

    @classmethod
    def fits(cls, base: Family) -> bool:
        """Serve convolutions on the processor; a GPU's library does the like by itself."""
        return base.device.type == HOST.type and bool(cls.modules(base))

    def convolve(self, module: nn.Conv2d, packs: Packs, x: Tensor) -> Tensor:
        """Return the convolution of `x`."""
        return unfolded.convolve(module, x)

    def input_gradient(
        self, module: nn.Conv2d, packs: Packs, gradient: Tensor, shape: torch.Size
    ) -> Tensor:
        """Return the gradient of an input of `shape`."""
        return unfolded.input_gradient(module, module.weight, gradient, shape)
