"""Products of 16-bit numbers on processors that have no kernels for them.

Without such kernels torch multiplies number by number: on a processor with AVX2 alone, a
convolution in bf16 takes a hundred times as long as in float32 (docs/measurements/memory.md). Here
operands are widened to float32 for the length of one product, whose result is rounded once, as
processors with such kernels do it. What is kept stays in 16 bits: weights, activations, gradients.

This holds inside the calls of a base that `widen_calls` got, and inside `with widened(...)`, which
a backward pass needs; torch itself and all else in the process stay as they are.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from personae.core.devices import HOST, SHAPES_ONLY
from personae.models.family import Family

KERNELS = {  # formats of 16 bits, and what says whether oneDNN multiplies in them here
    torch.bfloat16: "_is_mkldnn_bf16_supported",
    torch.float16: "_is_mkldnn_fp16_supported",
}
ON = (HOST.type, SHAPES_ONLY.type)
aten = torch.ops.aten
ATTENTION = aten._scaled_dot_product_flash_attention_for_cpu.default
PRODUCTS = {  # operators, and those that give a new tensor for the same
    **{each.default: each.default for each in (aten.mm, aten.addmm, aten.bmm, aten.baddbmm)},
    **{each.out: each.default for each in (aten.mm, aten.addmm, aten.bmm, aten.baddbmm)},
    aten.convolution.default: aten.convolution.default,
    aten.convolution_backward.default: aten.convolution_backward.default,
    ATTENTION: ATTENTION,
    aten._scaled_dot_product_flash_attention_for_cpu_backward.default: (
        aten._scaled_dot_product_flash_attention_for_cpu_backward.default
    ),
}


def lacks_kernels(device: torch.device, dtype: torch.dtype) -> bool:
    """Say whether `device` is a processor on which torch has no kernels for products in `dtype`."""
    if device.type != HOST.type or dtype not in KERNELS:
        return False
    has = getattr(torch.ops.mkldnn, KERNELS[dtype], None)
    return has is None or not torch.backends.mkldnn.is_available() or not has()


def widen_calls(base: Family) -> None:
    """Let every call of a network of `base` compute its products in float32, from now on.

    Its gradients too, where the backward pass runs inside `with widened(base)`.
    """
    base.widened = True
    networks = [*base.networks.values(), *base.autoencoder.children()]
    for network in networks:
        network.forward = _Widened(network.forward)


class _Widened:
    """A forward whose products are widened while it is called."""

    def __init__(self, plain: Callable[..., Any]) -> None:
        self.plain = plain

    def __call__(self, *given: Any, **named: Any) -> Any:
        with _inside():
            return self.plain(*given, **named)


def widened(base: Family) -> AbstractContextManager[object]:
    """Return a context in which products are widened in this thread, where calls of `base` are.

    It must not outlive a call: no `yield` belongs inside.
    """
    return _inside() if base.widened else nullcontext()


def carried() -> Callable[[], AbstractContextManager[object]]:
    """Return what makes contexts for other threads, which widen there what is widened here."""
    return Widening if _here.active else nullcontext


@contextmanager
def _inside() -> Iterator[None]:
    """Widen products in this thread, unless that is done already."""
    if _here.active:
        yield
    else:
        with Widening():
            yield


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


class _Here(threading.local):
    """What a thread has of its own: a room, and whether its products are widened now."""

    def __init__(self) -> None:
        self.room, self.active = Room(), False


_here = _Here()


class Widening(TorchDispatchMode):
    """A mode in which products of 16 bits are widened, on the processor, in one thread.

    Args:
        room: where operands lie; for tensors without values one of their own.
    """

    def __init__(self, room: Room | None = None) -> None:
        super().__init__()
        self._room, self._before = room, False

    def __enter__(self) -> Self:
        self._before, _here.active = _here.active, True
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        _here.active = self._before

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        fresh = PRODUCTS.get(func)
        half = None if fresh is None else _half(args)
        named = kwargs or {}
        if fresh is None or half is None:
            return func(*args, **named)
        out = named.get("out")
        named = {key: value for key, value in named.items() if key != "out"}
        room = self._room or _here.room
        return _rounded(func, fresh(*room.widen(args), **named), half, out)


def _half(given: Sequence[Any]) -> torch.dtype | None:
    """Return the format of the first operand, if it is one that is widened."""
    first = next(each for each in given if isinstance(each, Tensor))
    return first.dtype if first.dtype in KERNELS and first.device.type in ON else None


def _rounded(func: Any, result: Any, half: torch.dtype, out: Tensor | None) -> Any:
    """Return what the operator `func` gives, in the formats in which torch gives it."""
    if out is not None:
        return out.copy_(result)
    if isinstance(result, Tensor):
        return _copied(result, half)
    if func is ATTENTION:  # the second is the logarithm of sums, float32 in any case
        return _copied(result[0], half), *result[1:]
    return tuple(each if each is None else _copied(each, half) for each in result)


def _copied(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    # Not `to`, whose result may be its argument: modes that count memory leave it out.
    copy: Tensor = torch.ops.aten._to_copy(tensor, dtype=dtype)
    return copy
