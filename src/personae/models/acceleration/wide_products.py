"""Products of 16-bit numbers on processors that have no kernels for them.

Without such kernels torch multiplies number by number: on a processor with AVX2 alone, a
convolution in bf16 takes a hundred times as long as in float32 (docs/results.md). Here operands are
widened to float32 for the length of one product, whose result is rounded once, as processors with
such kernels do it. What is kept stays in 16 bits: weights, activations, gradients.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.library import Library, get_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from personae.core.devices import HOST, SHAPES_ONLY

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


def is_widened(device: torch.device, dtype: torch.dtype) -> bool:
    """Say whether products in `dtype` are computed in float32 on `device`."""
    return device.type == HOST.type and dtype in _widened


class Room:
    """Memory for the operands of one product in float32, kept for the next product.

    Memory touched for the first time would take longer than the numbers that are to lie there.
    """

    def __init__(self) -> None:
        self._numbers: Tensor | None = None

    def widen(self, operands: Sequence[Any]) -> list[Any]:
        """Return the operands of an operator, those of 16 bits in float32, laid out as they are."""
        halves = [each for each in operands if isinstance(each, Tensor) and each.dtype in KERNELS]
        wanted = sum(each.numel() for each in halves)
        if self._numbers is None or self._numbers.numel() < wanted:
            self._numbers = None  # before there is a larger one
            self._numbers = torch.empty(wanted, device=halves[0].device)
        wide, start = list(operands), 0
        for place, each in enumerate(operands):
            if isinstance(each, Tensor) and each.dtype in KERNELS:
                strides = torch.empty_like(each, device=SHAPES_ONLY).stride()
                wide[place] = self._numbers.as_strided(each.shape, strides, start).copy_(each)
                start += each.numel()
        return wide


class _Rooms(threading.local):
    """A room for each thread."""

    def __init__(self) -> None:
        self.mine = Room()


def _kernel(name: str) -> Callable[..., Any]:
    """Return what computes an operator of torch from now on."""
    plain = get_kernel(f"aten::{name}", "CPU")
    fresh = get_kernel(f"aten::{name.removesuffix('.out')}", "CPU")

    def compute(keys: Any, *given: Any, **named: Any) -> Any:
        half = _half(given)
        if half is None:
            return plain.call_boxed(keys, *given, **named)
        out = named.pop("out", None)
        result = fresh.call_boxed(keys, *_rooms.mine.widen(given), **named)
        return _rounded(name, result, half, out)

    return compute


class Widening(TorchDispatchMode):
    """Does the same to tensors without values, so that a forecast counts what is widened."""

    def __init__(self) -> None:
        super().__init__()
        self._room = Room()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        name, named = func.name().removeprefix("aten::"), dict(kwargs or {})
        half = _half(args) if name in OPERATORS else None
        if half is None:
            return func(*args, **named)
        out = named.pop("out", None)
        fresh = getattr(torch.ops.aten, name.removesuffix(".out")).default
        return _rounded(name, fresh(*self._room.widen(args), **named), half, out)


_rooms = _Rooms()


def _half(given: Sequence[Any]) -> torch.dtype | None:
    """Return the format of the first operand, if it is one that is widened."""
    first = next(each for each in given if isinstance(each, Tensor))
    return first.dtype if first.dtype in _widened else None


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
