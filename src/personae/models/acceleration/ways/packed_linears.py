"""Linear layers whose frozen weights are kept in the layout the processor's kernels want."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from personae.models.acceleration.acceleration import Acceleration
from personae.models.acceleration.packs import Packs, has_packing, is_frozen, needs_gradient
from personae.models.family import Family
from personae.models.forwards import Forward

# As for convolutions: beyond, laying the weight out is a small share of the multiplications.
MOST_ROWS = 384


class PackedLinears(Acceleration):
    """oneDNN linear layers on weights packed once, forward and for the gradient of the input."""

    name = "packed_linears"
    title = "packed linear layers"
    source = "https://uxlfoundation.github.io/oneDNN/dev_guide_matmul.html"
    part = "linears"
    tolerance = 1e-5
    copies = True

    @classmethod
    def fits(cls, base: Family) -> bool:
        """Serve on the processor, where torch brings oneDNN."""
        return has_packing(base, "_reorder_linear_weight", "_linear_pointwise")

    @classmethod
    def modules(cls, base: Family) -> dict[str, nn.Module]:
        """Return the denoiser's linear layers."""
        named = base.denoiser.named_modules()
        return {name: module for name, module in named if isinstance(module, nn.Linear)}

    def forward_for(self, module: nn.Module, plain: Forward) -> Forward:
        """Return the packed forward of one layer."""
        if not isinstance(module, nn.Linear):
            return plain
        return partial(_forward, module, plain, Packs(module))


def _forward(module: nn.Linear, plain: Forward, packs: Packs, x: Tensor) -> Tensor:
    rows = x.numel() // x.shape[-1]
    if rows > MOST_ROWS or not is_frozen(module) or x.dtype != module.weight.dtype:
        return plain(x)
    if needs_gradient(x):
        product: Tensor = _WithGradient.apply(x, module, packs)
        return product
    return _multiply(x, packs.get("forward", partial(_pack, rows)), module.bias)


def _pack(rows: int, weight: Tensor) -> Tensor:
    pack: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
    return pack


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


class _WithGradient(torch.autograd.Function):
    """The layer and the gradient of its input."""

    @staticmethod
    def forward(context: Any, x: Tensor, module: nn.Linear, packs: Packs) -> Tensor:
        context.packs, context.rows = packs, x.numel() // x.shape[-1]
        weight = packs.get("forward", partial(_pack, context.rows))
        return _multiply(x, weight, module.bias)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows = context.rows
        weight = context.packs.get("gradient", lambda weight: _pack(rows, weight.t().contiguous()))
        return _multiply(gradient.contiguous(), weight, None), None, None
