"""The contract every acceleration keeps, and nothing about any single one.

An acceleration computes what some modules of a base compute in another, quicker way. It never
renames, wraps or writes to a module or a weight, so techniques attach as before, and removing it
leaves nothing behind. Where it cannot serve (weights that are trained or replaced, shapes it is
not made for) it calls the module's own forward. Which accelerations are used is measured on the
machine at hand (`choice`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import nn

from personae.core.registry import PlugIn
from personae.models.family import Family
from personae.models.forwards import Forward


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
