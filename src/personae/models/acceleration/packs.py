"""Second copies of weights in a layout that kernels read quicker."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import ClassVar

import torch
from torch import Tensor, nn

from personae.core.devices import HOST
from personae.models.acceleration.wide_products import lacks_kernels
from personae.models.family import Family
from personae.models.weights.quantised import is_quantised


def is_frozen(module: nn.Module) -> bool:
    """Say whether weight and bias are the base's own, whole and not trained.

    DreamBooth lets merged tensors stand in the place of parameters; those change with every step.
    """
    weight, bias = module._parameters["weight"], module._parameters["bias"]
    return (
        isinstance(weight, nn.Parameter)
        and not is_quantised(weight)
        and not weight.requires_grad
        and (bias is None or (isinstance(bias, nn.Parameter) and not bias.requires_grad))
    )


class Packs:
    """What was made from the weight of one module, made anew when the weight is another one.

    Nothing here depends on what was computed before, so that the same picture has the same bytes.

    Attributes:
        seconds: what making took in this process, for all modules together.
    """

    __slots__ = ("_made", "_module", "_of")
    seconds: ClassVar[float] = 0.0

    def __init__(self, module: nn.Linear | nn.Conv2d) -> None:
        self._module = module
        self._made: dict[Hashable, Tensor] = {}
        self._of: tuple[Tensor, int] | None = None

    def get(self, kind: Hashable, make: Callable[[Tensor], Tensor]) -> Tensor:
        """Return `make(weight)`, kept under `kind`."""
        weight = self._module.weight
        if self._of is None or self._of[0] is not weight or self._of[1] != weight._version:
            self._made, self._of = {}, (weight, weight._version)
        if kind not in self._made:
            started = time.perf_counter()
            with torch.no_grad():
                self._made[kind] = make(weight.detach())
            Packs.seconds += time.perf_counter() - started
        return self._made[kind]


def has_packing(base: Family, *operators: str) -> bool:
    """Say whether `base` is where oneDNN computes, with operators that take its own layouts."""
    on_host = base.device.type == HOST.type and torch.backends.mkldnn.is_available()
    known = all(hasattr(torch.ops.mkldnn, operator) for operator in operators)
    return on_host and known and not lacks_kernels(base.device, base.dtype)


def needs_gradient(x: Tensor) -> bool:
    """Say whether a result computed from `x` must lead back to it."""
    return torch.is_grad_enabled() and x.requires_grad
