"""When weights are updated: after the backward pass, or tensor by tensor inside it.

Inside it, a gradient lives only until its tensor is updated, so the gradients of the whole network
are never held at once (Lv et al. 2023, arXiv:2306.09782, section 3.1). The norm over all tensors is
then not known in time; each tensor's gradient is clipped at `max_grad_norm` on its own instead.
That bounds every update and needs no second backward pass, but scales no tensor down on account of
another. The reported norm is still that of all gradients before clipping.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from personae.core.devices import HOST
from personae.errors import UsageError
from personae.training.optim.lean import LeanOptimizer
from personae.training.optim.rounding import CHUNK


class UpdateRule(Protocol):
    """Does one optimiser step around one or more backward passes.

    Outside `begin` .. `end` gradients are of a rehearsal; `forget` drops what is left of them.

    Attributes:
        keeps_gradients: those of a rehearsal stay until then, and a step can use them.
    """

    keeps_gradients: bool

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Return what moves the weights."""

    def begin(self) -> None:
        """Expect the backward passes of a step."""

    def end(self, loss: float) -> tuple[bool, float]:
        """Finish the step; return whether the weights moved and the norm of the gradients."""

    def forget(self) -> None:
        """Drop all gradients."""

    def detach(self) -> None:
        """Leave the parameters without a trace."""


class AfterBackward:
    """Clips the gradients at their norm over all parameters, then updates all of them."""

    keeps_gradients = True

    def __init__(self, optimizer: torch.optim.Optimizer, max_norm: float) -> None:
        self.optimizer, self.max_norm = optimizer, max_norm
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def begin(self) -> None:
        """Nothing to prepare."""

    def end(self, loss: float) -> tuple[bool, float]:
        """Update; the weights are left alone when the loss or the norm is not finite."""
        gradients = [each.grad for each in self._parameters if each.grad is not None]
        total = torch.nn.utils.get_total_norm(gradients)
        norm = total.item()
        sound = math.isfinite(loss) and math.isfinite(norm)
        if sound:
            if norm > self.max_norm:  # else a pass over all gradients would change nothing
                torch.nn.utils.clip_grads_with_norm_(self._parameters, self.max_norm, total)
            self.optimizer.step()
        self.forget()
        return sound, norm

    def forget(self) -> None:
        """Drop all gradients."""
        self.optimizer.zero_grad(set_to_none=True)

    def detach(self) -> None:
        """Nothing is attached."""


class InBackward:
    """Updates each tensor as soon as its gradient is complete, and frees the gradient.

    A tensor whose gradient is not finite is left alone; others may have moved by then, so the run
    has to go back to its last checkpoint, as it does.
    """

    keeps_gradients = False

    def __init__(self, optimizer: LeanOptimizer, max_norm: float) -> None:
        self.optimizer, self.max_norm = optimizer, max_norm
        self._squares: list[Tensor] | None = None
        self._handles = [
            parameter.register_post_accumulate_grad_hook(self._take)
            for group in optimizer.param_groups
            for parameter in group["params"]
        ]

    def begin(self) -> None:
        """From now on gradients update."""
        self._squares = []

    def end(self, loss: float) -> tuple[bool, float]:
        """Return what became of the step."""
        squares, self._squares = self._squares, None
        norm = torch.stack(squares).sum().sqrt().item() if squares else 0.0
        return math.isfinite(loss) and math.isfinite(norm), norm

    def forget(self) -> None:
        """Nothing is left: gradients of a rehearsal are dropped as they come."""

    def detach(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()

    @torch.no_grad()
    def _take(self, parameter: Tensor) -> None:
        gradient = parameter.grad
        if self._squares is not None and gradient is not None:
            norm = _norm(gradient)
            self._squares.append(norm.square())
            size = norm.item()
            if math.isfinite(size):
                if size > self.max_norm:
                    gradient.mul_(self.max_norm / (size + 1e-6))
                self.optimizer.update(parameter)
        parameter.grad = None


def _norm(gradient: Tensor) -> Tensor:
    """Return the norm in float32."""
    if gradient.dtype is torch.float32 or gradient.device != HOST:
        norm: Tensor = torch.linalg.vector_norm(gradient, dtype=torch.float32)
        return norm
    # The call above would convert the whole tensor first, which takes ten times as long here.
    pieces = (piece.float() for piece in gradient.reshape(-1).split(CHUNK))
    return torch.stack([torch.dot(piece, piece) for piece in pieces]).sum().sqrt()


def make_update(kind: str, optimizer: torch.optim.Optimizer, max_norm: float) -> UpdateRule:
    """Return the way of updating called `kind`: after_backward or in_backward."""
    if kind != "in_backward":
        return AfterBackward(optimizer, max_norm)
    if not isinstance(optimizer, LeanOptimizer):
        raise UsageError("update is 'in_backward', which this optimiser cannot do; leave it out")
    return InBackward(optimizer, max_norm)
