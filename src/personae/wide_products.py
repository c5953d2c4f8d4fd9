"""Products of 16-bit numbers on processors that have no kernels for them.

Without such kernels torch multiplies number by number: on a processor with AVX2 alone, a
convolution in bf16 takes 180 times as long as in float32 (docs/results.md). Here operands are
widened to float32 for the length of one product, whose result is rounded once, as processors with
such kernels do it. What is kept stays in 16 bits: weights, activations, gradients.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.library import Library, get_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from personae.devices import HOST

KERNELS = {  # formats of 16 bits, and what says whether oneDNN multiplies in them here
    torch.bfloat16: "_is_mkldnn_bf16_supported",
    torch.float16: "_is_mkldnn_fp16_supported",
}
ATTENTION = "_scaled_dot_product_flash_attention_for_cpu"
OPERATORS = (
    *("mm", "addmm", "bmm", "baddbmm"),
    *("mm.out", "addmm.out", "bmm.out", "baddbmm.out"),
    *("convolution", "convolution_backward"),
    *(ATTENTION, f"{ATTENTION}_backward"),
)

_widened: set[torch.dtype] = set()
_libraries: list[Library] = []  # hold the kernels in their places as long as they live


def widen_slow_products(device: torch.device, dtype: torch.dtype) -> None:
    """Let products in `dtype` be computed in float32 in this process, if `device` needs it."""
    if lacks_kernels(device, dtype):
        widen(dtype)


def lacks_kernels(device: torch.device, dtype: torch.dtype) -> bool:
    """Say whether `device` is a processor on which torch has no kernels for products in `dtype`."""
    if device.type != HOST.type or dtype not in KERNELS:
        return False
    has = getattr(torch.ops.mkldnn, KERNELS[dtype], None)
    return has is None or not torch.backends.mkldnn.is_available() or not has()


def widen(dtype: torch.dtype) -> None:
    """Let products in `dtype` be computed in float32 on the processor, in this process."""
    _widened.add(dtype)
    if _libraries:
        return
    _libraries.append(Library("aten", "IMPL"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that kernels of torch's own are replaced
        for name in OPERATORS:
            _libraries[0].impl(name, _kernel(name), "CPU", with_keyset=True)


def leave() -> None:
    """Give torch all its own kernels back."""
    while _libraries:
        _libraries.pop()._destroy()
    _widened.clear()


def is_widened(dtype: torch.dtype) -> bool:
    """Say whether products in `dtype` are computed in float32 on the processor."""
    return dtype in _widened


def _kernel(name: str) -> Callable[..., Any]:
    """Return what computes an operator of torch from now on."""
    plain = get_kernel(f"aten::{name}", "CPU")
    fresh = get_kernel(f"aten::{name.removesuffix('.out')}", "CPU")

    def compute(keys: Any, *given: Any, **named: Any) -> Any:
        half = _half(given)
        if half is None:
            return plain.call_boxed(keys, *given, **named)
        out = named.pop("out", None)
        return _rounded(name, fresh.call_boxed(keys, *_wide(given), **named), half, out)

    return compute


class Widening(TorchDispatchMode):
    """Does the same to tensors without values, so that a forecast counts what is widened."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        name, named = func.name().removeprefix("aten::"), dict(kwargs or {})
        half = _half(args) if name in OPERATORS else None
        if half is None:
            return func(*args, **named)
        out = named.pop("out", None)
        fresh = getattr(torch.ops.aten, name.removesuffix(".out")).default
        return _rounded(name, fresh(*_wide(args), **named), half, out)


def _half(given: Sequence[Any]) -> torch.dtype | None:
    """Return the format of the first operand, if it is one that is widened."""
    first = next(each for each in given if isinstance(each, Tensor))
    return first.dtype if first.dtype in _widened else None


def _wide(given: Sequence[Any]) -> list[Any]:
    narrow = (isinstance(each, Tensor) and each.dtype in KERNELS for each in given)
    pairs = zip(given, narrow, strict=True)
    return [_copied(each, torch.float32) if half else each for each, half in pairs]


def _rounded(name: str, result: Any, half: torch.dtype, out: Tensor | None) -> Any:
    """Return what the operator called `name` gives, in the formats in which torch gives it."""
    if out is not None:
        return out.copy_(result)
    if isinstance(result, Tensor):
        return _copied(result, half)
    if name == ATTENTION:  # the second is the logarithm of sums, float32 in any case
        return _copied(result[0], half), *result[1:]
    return tuple(each if each is None else _copied(each, half) for each in result)


def _copied(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    # Not `to`, whose result may be its argument: modes that count memory leave it out.
    return torch.ops.aten._to_copy(tensor, dtype=dtype)
