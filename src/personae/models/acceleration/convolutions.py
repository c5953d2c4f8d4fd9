"""What accelerations of convolutions share: which layers they serve, and when."""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from personae.models.acceleration import unfolded
from personae.models.acceleration.acceleration import Acceleration
from personae.models.acceleration.packs import Packs, is_frozen, needs_gradient
from personae.models.family import Family
from personae.models.forwards import Forward
from personae.models.weights.quantised import is_quantised


class QuickConvolutions(Acceleration):
    """Convolutions with frozen weights, whose inputs need not be kept for the backward pass.

    Weights that are trained, or changed by what is trained, are used as they lie: on small maps
    by matrix products, on others as torch does it.
    """

    part = "convolutions"
    tolerance = 1e-5

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

    def forward_for(self, module: nn.Module, plain: Forward) -> Forward:
        """Return the forward of one convolution."""
        if not isinstance(module, nn.Conv2d):
            return plain
        return partial(self._forward, module, plain, Packs(module))

    @abstractmethod
    def convolve(self, module: nn.Conv2d, packs: Packs, x: Tensor) -> Tensor:
        """Return the convolution of `x` (b, c, h, w), channels first."""

    @abstractmethod
    def input_gradient(
        self, module: nn.Conv2d, packs: Packs, gradient: Tensor, shape: torch.Size
    ) -> Tensor:
        """Return the gradient of an input of `shape`, of that of the result."""

    def _forward(self, module: nn.Conv2d, plain: Forward, packs: Packs, x: Tensor) -> Tensor:
        weight, bias = module.weight, module.bias
        if is_quantised(weight) or x.dtype != weight.dtype or x.dim() != 4:
            return plain(x)
        if not is_frozen(module):
            if unfolded.places(x.shape, module) > unfolded.MOST_PLACES:
                return plain(x)
            trained: Tensor = _Trained.apply(x, weight, bias, module)
            return trained
        if needs_gradient(x):
            frozen: Tensor = _WithGradient.apply(x, self, module, packs)
            return frozen
        return self.convolve(module, packs, x)


class _WithGradient(torch.autograd.Function):
    """The convolution and the gradient of its input, nothing kept in between."""

    @staticmethod
    def forward(
        context: Any, x: Tensor, way: QuickConvolutions, module: nn.Conv2d, packs: Packs
    ) -> Tensor:
        context.way, context.module, context.packs, context.shape = way, module, packs, x.shape
        return way.convolve(module, packs, x)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        found = context.way.input_gradient(context.module, context.packs, gradient, context.shape)
        return found, None, None, None


class _Trained(torch.autograd.Function):
    """The convolution of a small map, and the gradients of input, weight and bias."""

    @staticmethod
    def forward(
        context: Any, x: Tensor, weight: Tensor, bias: Tensor | None, module: nn.Conv2d
    ) -> Tensor:
        context.save_for_backward(x, weight)
        context.module = module
        return unfolded.convolve(module, x)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = context.saved_tensors
        of_x, of_weight, of_bias, _ = context.needs_input_grad
        module = context.module
        return (
            unfolded.input_gradient(module, weight, gradient, x.shape) if of_x else None,
            unfolded.weight_gradient(module, x, gradient) if of_weight else None,
            gradient.sum((0, 2, 3)) if of_bias else None,
            None,
        )
