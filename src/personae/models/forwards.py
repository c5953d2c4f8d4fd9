"""Other ways to compute what a module computes, put in the place of its `forward`.

The module, its weights, its name and its hooks stay what they are: hooks run around a replaced
`forward` as around the module's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

Forward = Callable[..., Tensor]
"""Computes the one tensor that a layer returns."""


class Quicker(Protocol):
    """What computes a module's result in another way."""

    @property
    def name(self) -> str:
        """Return what it is called."""

    def forward_for(self, module: nn.Module, plain: Forward) -> Forward:
        """Return a forward for `module` that may call `plain` where it has nothing better."""


class Slot:
    """Stands in the place of one module's forward: one way with gradients, one without."""

    __slots__ = ("_made", "module", "now", "plain")

    def __init__(self, module: nn.Module) -> None:
        self.module, self.plain = module, module.forward
        self.now: list[Forward] = [self.plain, self.plain]
        self._made: dict[tuple[str, ...], Forward] = {}

    def __call__(self, *args: Any, **named: Any) -> Tensor:
        """Compute by the way chosen for training where gradients are on, else for inference."""
        return self.now[torch.is_grad_enabled()](*args, **named)

    def choose(self, training: bool, quicker: Iterable[Quicker]) -> None:
        """Let `quicker`, each around the one before, compute from now on."""
        forward, names = self.plain, tuple[str, ...]()
        for each in quicker:
            names += (each.name,)
            if names not in self._made:
                self._made[names] = each.forward_for(self.module, forward)
            forward = self._made[names]
        self.now[training] = forward


class Forwards:
    """The replaced forwards of one base."""

    def __init__(self) -> None:
        self._slots: dict[nn.Module, Slot] = {}
        self._chosen: list[dict[nn.Module, Sequence[Quicker]]] = [{}, {}]

    def names(self, training: bool) -> list[str]:
        """Return the names of what computes now, in alphabetical order."""
        return sorted({each.name for kinds in self._chosen[training].values() for each in kinds})

    def chosen(self, training: bool) -> dict[nn.Module, Sequence[Quicker]]:
        """Return what computes now, for `choose`."""
        return self._chosen[training]

    def choose(self, training: bool, wanted: Mapping[nn.Module, Sequence[Quicker]]) -> None:
        """Let exactly `wanted` compute, with gradients on (`training`) or off.

        What was prepared for a module (packed weights) is kept, so that changing back is free.
        """
        for module in {**self._chosen[training], **wanted}:
            if module not in self._slots:
                self._slots[module] = module.forward = Slot(module)
            self._slots[module].choose(training, wanted.get(module, ()))
        self._chosen[training] = dict(wanted)

    def remove(self) -> None:
        """Give every module its own forward back and free what was prepared."""
        for module in self._slots:
            del module.__dict__["forward"]
        self._slots.clear()
        self._chosen = [{}, {}]
