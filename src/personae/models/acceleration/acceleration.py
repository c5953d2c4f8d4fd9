"""The contract every acceleration keeps, and nothing about any single one.

An acceleration computes what some modules of a base compute in another, quicker way. It never
renames, wraps or writes to a module or a weight, so techniques attach as before, and removing it
leaves nothing behind. Where it cannot serve (weights that are trained or replaced, shapes it is
not made for) it calls the module's own forward. Which accelerations are used is measured on the
machine at hand (`accelerating`).
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from typing import ClassVar

import torch
from torch import Tensor, nn

from personae.core.devices import HOST
from personae.core.registry import PlugIn
from personae.models.acceleration.wide_products import lacks_kernels
from personae.models.family import Family
from personae.models.forwards import Forward
from personae.models.weights.quantised import is_narrow


class Acceleration(PlugIn, ABC):
    """Another way to compute what some modules compute.

    A class sets `name`, `title` and `source` (where the gain comes from).

    Attributes:
        part: what it replaces; of the accelerations of one part only the quickest is used.
        exact: gives the bits of the plain way; then it need not be measured to be trusted.
        tolerance: largest difference from the plain way in outputs and input gradients, relative
            to the largest value of the plain one, for weights in float32. A format with fewer
            bits multiplies it by its own rounding over that of float32.
        inference_only: is of no use while training.
        copies: keeps second copies of weights, so that it must gain more to be chosen.
        frugal: takes no more memory than the plain way, neither by copies nor by what it keeps for
            the backward pass.
    """

    package: ClassVar[str] = "personae.models.acceleration.ways"
    group: ClassVar[str] = "personae.acceleration"
    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    part: ClassVar[str]
    exact: ClassVar[bool] = False
    tolerance: ClassVar[float] = 0.0
    inference_only: ClassVar[bool] = False
    copies: ClassVar[bool] = False
    frugal: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def fits(cls, base: Family) -> bool:
        """Say whether it can serve on the device and in the number format of `base` at all."""

    @classmethod
    def promises(cls, base: Family) -> bool:
        """Say whether it may win on the device of `base`, so that `auto` takes the time to try."""
        return True

    @classmethod
    @abstractmethod
    def modules(cls, base: Family) -> dict[str, nn.Module]:
        """Return the modules of the denoiser it would compute for, by name."""

    @abstractmethod
    def forward_for(self, module: nn.Module, plain: Forward) -> Forward:
        """Return a forward for `module` that calls `plain` where it has nothing better."""


def frozen(module: nn.Module) -> bool:
    """Say whether weight and bias are the base's own, whole and not trained.

    DreamBooth lets merged tensors stand in the place of parameters; those change with every step.
    """
    weight, bias = module._parameters["weight"], module._parameters["bias"]
    return (
        isinstance(weight, nn.Parameter)
        and not is_narrow(weight)
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

    def __init__(self, module: nn.Module) -> None:
        self._module, self._made, self._of = module, {}, None

    def get(self, kind: Hashable, make: Callable[[Tensor], Tensor]) -> Tensor:
        """Return `make(weight)`, kept under `kind`."""
        weight = self._module._parameters["weight"]
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
