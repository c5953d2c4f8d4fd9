"""When weights are updated: after the backward pass, or tensor by tensor inside it.

Inside it, a gradient lives only until its tensor is updated, so the gradients of the whole network
are never held at once (Lv et al. 2023, arXiv:2306.09782, section 3.1). The norm over all tensors is
then not known in time; each tensor's gradient is clipped at `max_grad_norm` on its own instead.
That bounds every update and needs no second backward pass, but scales no tensor down on account of
another. The reported norm is still that of all gradients before clipping.

Of a step the host reads one thing, all losses and the norm together, after its last backward pass:
reading waits for a device. Only in the host's own memory nothing is waited for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor

from personae.core.devices import HOST, at_hand
from personae.errors import UsageError
from personae.training.optim.lean import LeanOptimizer
from personae.training.optim.rounding import CHUNK


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a step.

    Attributes:
        moved: the weights moved, and loss and norm are finite.
        loss: of the step.
        norm: of all its gradients, before clipping.
    """

    moved: bool
    loss: float
    norm: float

    @classmethod
    def read(cls, losses: Tensor, norm: Tensor) -> Self:
        """Read both in one transfer.

        Args:
            losses: of the passes, (n,); their sum is the step's.
            norm: a scalar.
        """
        together = torch.cat([losses, norm.to(losses).reshape(1)])
        *parts, size = together.tolist()
        loss = sum(parts)
        return cls(math.isfinite(loss) and math.isfinite(size), loss, size)


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

    def end(self, losses: Tensor) -> Outcome:
        """Finish the step, whose passes had `losses` (n,)."""

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

    def end(self, losses: Tensor) -> Outcome:
        """Update; the weights are left alone when the loss or the norm is not finite."""
        gradients = [each.grad for each in self._parameters if each.grad is not None]
        total = torch.nn.utils.get_total_norm(gradients)
        done = Outcome.read(losses, total)
        if done.moved:
            if done.norm > self.max_norm:  # else a pass over all gradients would change nothing
                torch.nn.utils.clip_grads_with_norm_(self._parameters, self.max_norm, total)
            self.optimizer.step()
        self.forget()
        return done

    def forget(self) -> None:
        """Drop all gradients."""
        self.optimizer.zero_grad(set_to_none=True)

    def detach(self) -> None:
        """Nothing is attached."""


class InBackward:
    """Updates each tensor as soon as its gradient is complete, and frees the gradient.

    Where loss or norm turn out not to be finite, weights may have moved all the same, so that the
    run has to go back to its last checkpoint, as it does.
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

    def end(self, losses: Tensor) -> Outcome:
        """Return what became of the step."""
        squares, self._squares = self._squares, None
        norm = torch.stack(squares).sum().sqrt() if squares else torch.zeros(())
        return Outcome.read(losses, norm)

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
            if _clipped(gradient, norm, self.max_norm):
                self.optimizer.update(parameter)
        parameter.grad = None


def _clipped(gradient: Tensor, norm: Tensor, most: float) -> bool:
    """Scale a gradient down to a norm of `most`; return False where it is known not to be finite.

    Of one on a device nothing is known without waiting.
    """
    size = at_hand(norm)
    if isinstance(size, Tensor):
        gradient.mul_((most / (size + 1e-6)).clamp(max=1.0))
        return True
    if most < size < math.inf:  # else a pass over the gradient would change nothing
        gradient.mul_(most / (size + 1e-6))
    return math.isfinite(size)


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
