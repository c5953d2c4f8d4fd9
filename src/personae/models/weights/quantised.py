"""Frozen weights of linear layers in 8 or 4 bits, through torchao.

Only the denoiser's linear layers are kept that way; weights are turned back, layer by layer, as
they multiply, so results and gradients have the base's own format. Convolutions, norms and the
other networks stay as they are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from personae.core.device_names import check_precision
from personae.core.devices import SHAPES_ONLY, pick_precision
from personae.errors import UnsupportedError, UsageError

NF4_BLOCK = 64  # weights that share a scale (Dettmers et al. 2023, arXiv:2305.14314, section 3)
NF4_SCALES = 256  # scales that share one of their own: "double quantization", the same section


def int8(weight: Tensor) -> Tensor:
    """Return `weight` (out, in) in whole numbers of 8 bits with one scale for each output."""
    from torchao.quantization import Int8Tensor, PerRow

    packed: Tensor = Int8Tensor.from_hp(weight, PerRow())
    return packed


def nf4(weight: Tensor) -> Tensor:
    """Return `weight` in the 4-bit NormalFloat of QLoRA (arXiv:2305.14314)."""
    from torchao.quantization import NF4Tensor

    scales = weight.numel() // NF4_BLOCK
    together = next(size for size in _halves(NF4_SCALES) if scales % size == 0)
    packed: Tensor = NF4Tensor.from_tensor(weight, NF4_BLOCK, together)
    return packed


QUANTISED: dict[str, Callable[[Tensor], Tensor]] = {each.__name__: each for each in (int8, nf4)}


class QuantisedLinear(nn.Linear):
    """A linear layer with a frozen weight in fewer bits."""

    def __init__(self, layer: nn.Linear, make: Callable[[Tensor], Tensor]) -> None:
        super().__init__(layer.in_features, layer.out_features, bias=False, device=SHAPES_ONLY)
        self.weight = nn.Parameter(make(layer.weight.detach()), requires_grad=False)
        self.bias = layer.bias

    def forward(self, x: Tensor) -> Tensor:
        """Multiply by the weight, which is whole only for the length of the product."""
        product: Tensor = _Product.apply(x, self.weight, self.bias)
        return product


class _Product(torch.autograd.Function):
    """The product and the gradient of its input.

    The library's own keeps each whole weight for the backward pass, which is more memory than was
    saved: 3.1 GiB in the place of bf16's 2.9 at the shape of Stable Diffusion 1.5.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.weight = weight
        return functional.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return gradient @ _whole(ctx.weight, gradient.dtype), None, None


def _whole(weight: Tensor, format_: torch.dtype) -> Tensor:
    # NormalFloat's `dequantize` is something else.
    whole = getattr(weight, "get_original_weight", weight.dequantize)
    return whole().to(format_)


def pick_format(precision: str, device: torch.device) -> torch.dtype:
    """Return the format that a base of `precision` computes in: its own, or auto's if quantised.

    Raises:
        UsageError: the name is none of auto, fp32, bf16, fp16 and QUANTISED.
    """
    check_precision(precision)
    return pick_precision("auto" if precision in QUANTISED else precision, device)


@torch.no_grad()
def quantise(network: nn.Module, name: str) -> None:
    """Keep the weights of every linear layer of `network` in the format called `name`.

    Layers whose number of weights is no multiple of 64 stay as they are.

    Raises:
        UsageError: torchao is not installed.
    """
    with _quiet():
        try:
            for place, layer in list(network.named_modules()):
                if type(layer) is nn.Linear and layer.weight.numel() % NF4_BLOCK == 0:
                    network.set_submodule(place, QuantisedLinear(layer, QUANTISED[name]))
        except ImportError:
            raise UsageError(
                f"precision is '{name}', which needs torchao, and that is not installed; pip "
                "install torchao, or use --precision bf16"
            ) from None


def is_quantised(weight: Tensor) -> bool:
    """Say whether a weight is kept in fewer bits than the format it shows."""
    return hasattr(weight, "__tensor_flatten__")


def refuse_quantised(network: nn.Module) -> None:
    """Refuse to change the weights of a network that does not hold them whole.

    Raises:
        UnsupportedError: a weight is quantised.
    """
    if any(is_quantised(weight) for weight in network.parameters()):
        raise UnsupportedError(
            "this technique changes the base's own weights, and the base is loaded in 8 or 4 "
            "bits, which cannot hold the change; use --precision bf16 or fp32"
        )


def stored_bytes(weight: Tensor) -> int:
    """Return the bytes a weight takes, its scales included."""
    if not is_quantised(weight):
        return weight.numel() * weight.element_size()
    wrapped: Any = weight  # a subclass of Tensor that is made of tensors
    parts, _ = wrapped.__tensor_flatten__()
    return sum(stored_bytes(getattr(wrapped, part)) for part in parts)


def _halves(number: int) -> Iterator[int]:
    while number:
        yield number
        number //= 2


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torchao from telling of compiled parts that it does without."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
