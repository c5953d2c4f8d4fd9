"""What is learnt, in the format that a network computes in: cast once a pass, all of it together.

Of the 2,844 operators of a LoRA's pass at the shape of Stable Diffusion 1.5, 512 cast one matrix
each, or its gradient back. On a GPU each is a kernel to launch, and launches are what a step waits
for. Here a single multi-tensor copy goes each way, with the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

ALIGNED = 64  # numbers; each tensor begins where one of its own memory would, for vector loads


@dataclass(slots=True)
class Casts:
    """Casts of parameters that layers share until something is updated."""

    _kept: dict[nn.Parameter, tuple[Tensor, int]] = field(default_factory=dict)

    def begin(self, parameters: Sequence[nn.Parameter], dtype: torch.dtype) -> None:
        """Cast the parameters of a pass that begins, which is to be asked for them in `dtype`."""
        wanted = [each for each in parameters if each.dtype != dtype]
        if torch.is_grad_enabled() or any(self._known(each, dtype) is None for each in wanted):
            cast = _Cast.apply(dtype, *wanted) if wanted else ()
            made = {each: (one, each._version) for each, one in zip(wanted, cast, strict=True)}
            self._kept.update(made)

    def of(self, parameter: nn.Parameter, dtype: torch.dtype) -> Tensor:
        """Return a parameter in `dtype`; cast alone where no pass began with it as it is now."""
        known = self._known(parameter, dtype)
        return parameter.to(dtype) if known is None else known

    def forget(self) -> None:
        """Let all casts go."""
        self._kept.clear()

    def _known(self, parameter: nn.Parameter, dtype: torch.dtype) -> Tensor | None:
        cast, version = self._kept.get(parameter, (parameter, -1))
        graph = cast.requires_grad or not (torch.is_grad_enabled() and parameter.requires_grad)
        usable = version == parameter._version and cast.dtype == dtype and graph
        return cast if usable else None


class _Cast(torch.autograd.Function):
    """The cast of many tensors, and of their gradients back, by one multi-tensor copy each."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *parameters: Tensor) -> tuple[Tensor, ...]:
        ctx.dtype = parameters[0].dtype  # what is learnt has one
        ctx.set_materialize_grads(False)
        return tuple(_copied(parameters, dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        there = [each for each in gradients if each is not None]
        back = iter(_copied(there, ctx.dtype) if there else ())
        return None, *(None if each is None else next(back) for each in gradients)


def _copied(tensors: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Return copies in `dtype`, parts of one piece of memory."""
    places = [0]
    for each in tensors:
        places.append(places[-1] + -(-each.numel() // ALIGNED) * ALIGNED)
    memory = torch.empty(places[-1], dtype=dtype, device=tensors[0].device)
    copies = [
        memory.narrow(0, place, each.numel()).view(each.shape)
        for each, place in zip(tensors, places, strict=False)
    ]
    torch._foreach_copy_(copies, list(tensors))
    return copies
