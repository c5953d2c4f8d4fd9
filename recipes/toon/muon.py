"""Muon (Jordan et al. 2024) for matrices and convolutions, AdamW for everything else.

Momentum is replaced by the nearest matrix with equal singular values, so that all directions are learnt equally
fast. A convolution counts as a matrix of output channels by inputs. Matrices of one shape are handled together.
"""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import nn

from data import PRODUCTS

ROUNDS = (5,) if PRODUCTS is torch.float32 else (2, 3)
"""How many rounds of the iteration are done together, again and again."""


def orthogonal(matrices: torch.Tensor, rounds: tuple[int, ...] = ROUNDS) -> torch.Tensor:
    """The orthogonal matrices near `matrices` (N x rows x columns), by Newton and Schulz's iteration in `PRODUCTS`.

    Each round multiplies by a polynomial of the small square X Xᵀ, so several rounds are done on the square alone
    before the long matrix is touched: half the work for a convolution's 256 x 2304. In bfloat16 more than three rounds
    at once are not stable, since rounding makes small eigenvalues negative and those grow.
    """
    x = matrices if matrices.shape[-2] <= matrices.shape[-1] else matrices.mT
    x = (x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)).to(PRODUCTS)
    for together in rounds:
        square, product = x @ x.mT, None
        for left in reversed(range(together)):
            factor = torch.baddbmm(square, square, square, beta=-4.775, alpha=2.0315)
            factor.diagonal(dim1=-2, dim2=-1).add_(3.4445)
            product = factor if product is None else factor @ product
            if left:
                square = factor @ square @ factor
        x = product @ x
    x = x.to(matrices.dtype)
    return x if matrices.shape[-2] <= matrices.shape[-1] else x.mT


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum; updates are scaled to the size of AdamW's (arXiv 2502.16982)."""

    def __init__(
        self,
        parameters: list[nn.Parameter],
        lr: float = 0.0,
        momentum: float = 0.95,
        decay: float = 0.01,
    ):
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            shapes: dict[tuple[int, ...], list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes[tuple(parameter.shape)].append(parameter)
            for alike in shapes.values():
                self._update(alike, group)

    def _update(self, alike: list[nn.Parameter], group: dict) -> None:
        for parameter in alike:
            if "momentum" not in self.state[parameter]:
                self.state[parameter]["momentum"] = torch.zeros_like(parameter)
        gradients, momenta = [p.grad for p in alike], [self.state[p]["momentum"] for p in alike]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        ahead = torch._foreach_lerp(gradients, momenta, group["momentum"])
        updates = orthogonal(torch.stack(ahead).flatten(2))
        scale = 0.2 * max(updates.shape[-2:]) ** 0.5
        torch._foreach_mul_(alike, 1 - group["lr"] * group["decay"])
        torch._foreach_add_(alike, list(updates.view(-1, *alike[0].shape)), alpha=-group["lr"] * scale)


class Optimiser:
    """Muon for the inner matrices and convolutions of a model, AdamW for the rest."""

    def __init__(self, model: nn.Module) -> None:
        inner = {id(p) for n, p in model.named_parameters() if p.ndim >= 2 and not self._at_the_border(n)}
        parameters = [p for p in model.parameters() if p.requires_grad]
        matrices = [p for p in parameters if id(p) in inner]
        others = [p for p in parameters if id(p) not in inner]
        self.muon = Muon(matrices)
        self.adam = torch.optim.AdamW(others, lr=0.0, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
        self.parameters = parameters

    @staticmethod
    def _at_the_border(name: str) -> bool:
        return "embedding" in name or "conv_in" in name or "conv_out" in name

    def step(self, loss: torch.Tensor, rate: float) -> float:
        """Back-propagate, clip, update; returns the gradients' norm."""
        loss.backward()
        return self.update(rate)

    def update(self, rate: float) -> float:
        """Clip and update by the gradients there are, and forget them; returns their norm."""
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimiser in (self.muon, self.adam):
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        return float(norm)

    def state_dict(self) -> dict:
        """The state of both."""
        return {"muon": self.muon.state_dict(), "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        """Take up the state of both."""
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])
        for parameter, kept in self.muon.state.items():  # in the order of memory that its parameter has now
            kept["momentum"] = torch.empty_like(parameter).copy_(kept["momentum"])
