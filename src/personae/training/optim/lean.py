"""Optimisers that update one tensor at a time in little memory, in plain torch on any device.

All arithmetic is float32 and runs chunk by chunk, whatever the format of weights, gradients and
states. Draws (stochastic rounding) follow from (seed, step, place of the tensor) alone, so that a
resumed run continues bit for bit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor

from personae.core.devices import at_hand
from personae.training.optim.eight_bit import BLOCK, FIRST_MOMENT, SECOND_MOMENT, Quantised
from personae.training.optim.rounding import CHUNK, CUT_BITS, noise, read, write

BETAS = (0.9, 0.99)
ADAM_EPSILON = 1e-8
SMALL = 4096  # shorter tensors keep float32 states, as in arXiv:2110.02861, section 2.3


class LeanOptimizer(torch.optim.Optimizer, ABC):
    """An optimiser whose `update` handles one parameter on its own.

    A group may say `rounding` ("nearest", "stochastic" or "kahan"): how its bf16 weights are
    written.
    """

    def __init__(self, groups: list[dict[str, Any]], *, seed: int) -> None:
        super().__init__(groups, {"lr": 1e-3, "weight_decay": 0.0, "rounding": "nearest"})
        self.seed = seed
        placed = [(p, group) for group in self.param_groups for p in group["params"]]
        self._places = {id(p): (i, group) for i, (p, group) in enumerate(placed)}

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # takes no closure
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self.update(parameter)

    @torch.no_grad()
    def update(self, parameter: Tensor) -> None:
        """Update one parameter by its gradient, if it has one."""
        gradient = parameter.grad
        if gradient is None:
            return
        state, (place, group) = self.state[parameter], self._places[id(parameter)]
        if not state:
            state["step"] = 0
            if group["rounding"] == "kahan":
                state["compensation"] = torch.zeros_like(parameter)
            self._begin(parameter, state)
        state["step"] += 1
        draws = (self.seed, "rounding", state["step"], place)
        self._apply(parameter, gradient, _Tensor(parameter, group, state, draws))

    @abstractmethod
    def _begin(self, parameter: Tensor, state: dict[str, Any]) -> None:
        """Allocate the states of one parameter."""

    @abstractmethod
    def _apply(self, parameter: Tensor, gradient: Tensor, tensor: _Tensor) -> None:
        """Move the states and write the weights of one parameter."""

    @staticmethod
    @abstractmethod
    def state_bytes(parameter: Tensor) -> int:
        """Return the bytes of its states for one parameter, Kahan's numbers not counted."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a state; each tensor keeps its own format, which torch's own would change."""
        parameters = [p for group in self.param_groups for p in group["params"]]
        for group, saved in zip(self.param_groups, state_dict["param_groups"], strict=True):
            group.update({name: value for name, value in saved.items() if name != "params"})
        self.state.clear()
        for place, saved in state_dict["state"].items():
            parameter = parameters[place]
            self.state[parameter] = {
                name: value.to(parameter.device, copy=True) if isinstance(value, Tensor) else value
                for name, value in saved.items()
            }


class _Tensor:
    """One parameter while it is updated: its flat weights, its rates and how it is rounded."""

    def __init__(
        self,
        parameter: Tensor,
        group: dict[str, Any],
        state: dict[str, Any],
        draws: tuple[Any, ...],
    ) -> None:
        self.weights = parameter.detach().view(-1)
        self.state = state
        self.rate, self.decay = group["lr"], group["weight_decay"]
        self.draws = draws
        kahan = state.get("compensation")
        self.compensation = None if kahan is None else kahan.view(-1)
        self.noise = self.draw("weights") if group["rounding"] == "stochastic" else None

    def draw(self, what: str) -> Tensor:
        """Return noise of one chunk, other for each use."""
        return noise(self.weights.numel(), self.weights.device, *self.draws, what)

    def move(self, start: int, direction: Tensor, rate: float | Tensor) -> None:
        """Subtract `rate * direction` and the decay from the weights that begin at `start`.

        `direction` is used up.
        """
        part = slice(start, start + len(direction))
        kahan = None if self.compensation is None else self.compensation[part]
        value = read(self.weights[part], kahan)
        if self.decay:
            value.mul_(1 - self.rate * self.decay)
        if isinstance(rate, Tensor):
            value.sub_(direction.mul_(rate))
        else:
            value.sub_(direction, alpha=rate)
        drawn = None if self.noise is None else self.noise[: len(direction)]
        write(self.weights[part], value, drawn, kahan)


class LeanAdamW(LeanOptimizer):
    """AdamW (Loshchilov and Hutter, arXiv:1711.05101) with float32 states."""

    def _begin(self, parameter: Tensor, state: dict[str, Any]) -> None:
        for moment in ("first", "second"):
            state[moment] = torch.zeros(parameter.numel(), device=parameter.device)

    def _apply(self, parameter: Tensor, gradient: Tensor, tensor: _Tensor) -> None:
        flat, state = gradient.reshape(-1), tensor.state
        for part in _chunks(flat.numel()):
            first, second = state["first"][part], state["second"][part]
            direction = _adam(flat[part].float(), first, second, state["step"])
            tensor.move(part.start, direction, tensor.rate)

    @staticmethod
    def state_bytes(parameter: Tensor) -> int:
        """Return 8 bytes a number."""
        return 8 * parameter.numel()


class AdamW8bit(LeanAdamW):
    """AdamW whose two moments take one byte each (arXiv:2110.02861; see `eight_bit`)."""

    def _begin(self, parameter: Tensor, state: dict[str, Any]) -> None:
        if parameter.numel() < SMALL:
            super()._begin(parameter, state)
            return
        count, device = parameter.numel(), parameter.device
        state["first"], state["first_scales"] = Quantised.zeros(FIRST_MOMENT, count, device)
        state["second"], state["second_scales"] = Quantised.zeros(SECOND_MOMENT, count, device)

    def _apply(self, parameter: Tensor, gradient: Tensor, tensor: _Tensor) -> None:
        state = tensor.state
        if "first_scales" not in state:
            super()._apply(parameter, gradient, tensor)
            return
        moments = (
            Quantised(FIRST_MOMENT, state["first"], state["first_scales"]),
            Quantised(SECOND_MOMENT, state["second"], state["second_scales"]),
        )
        drawn = [tensor.draw(name).float().div_(2**CUT_BITS) for name in ("first", "second")]
        flat = gradient.reshape(-1)
        for part in _chunks(flat.numel()):
            count = part.stop - part.start
            first, second = (moment.read(part.start, count) for moment in moments)
            direction = _adam(flat[part].float(), first, second, state["step"])
            for moment, value, uniform in zip(moments, (first, second), drawn, strict=True):
                moment.write(part.start, value, uniform[:count])
            tensor.move(part.start, direction, tensor.rate)

    @staticmethod
    def state_bytes(parameter: Tensor) -> int:
        """Return 2 bytes a number and two scales a block, the last one filled up."""
        count = parameter.numel()
        return 8 * count if count < SMALL else 2 * (BLOCK + 4) * -(-count // BLOCK)


class Adafactor(LeanOptimizer):
    """Adafactor with a given learning rate and without momentum.

    Source: Shazeer and Stern 2018, arXiv:1804.04235: algorithm 4 (factored second moment),
    section 6 (update clipping at d = 1) and section 7.2 (decay 1 - t^-0.8). A convolution's weight
    is read as a matrix of outputs x (inputs x kernel); factoring over the kernel's two sides, as
    other implementations do, would keep two thirds of the numbers of a 3x3 kernel.
    """

    FLOOR = 1e-30
    CLIP = 1.0

    def _begin(self, parameter: Tensor, state: dict[str, Any]) -> None:
        for name, count in _factors(parameter).items():
            state[name] = torch.zeros(count, device=parameter.device)

    def _apply(self, parameter: Tensor, gradient: Tensor, tensor: _Tensor) -> None:
        state = tensor.state
        matrix = gradient.reshape(len(gradient) if "rows" in state else 1, -1)
        left, right = self._scales(matrix, state, share=state["step"] ** -0.8)
        # The sum of squares of the update, as products with the squares of the gradient.
        squares = sum(
            left[rows].square() @ (_square(matrix[rows, columns]) @ right[columns].square())
            for rows, columns in _blocks(matrix)
        )
        size = at_hand((cast(Tensor, squares) / matrix.numel()).sqrt())
        over = size / self.CLIP
        rate = tensor.rate / (over.clamp(min=1.0) if isinstance(over, Tensor) else max(1.0, over))
        for rows, columns in _blocks(matrix):
            direction = matrix[rows, columns].float().mul_(right[columns]).mul_(left[rows, None])
            start = rows.start * matrix.shape[1] + columns.start
            tensor.move(start, direction.flatten(), rate)

    def _scales(self, matrix: Tensor, state: dict[str, Any], share: float) -> tuple[Tensor, Tensor]:
        """Move the second moment; return what rows and columns of the gradient are multiplied by.

        `share` is that of the new square in the mean.
        """
        if "rows" not in state:
            for part in _chunks(matrix.shape[1]):
                square = _square(matrix[0, part]).add_(self.FLOOR)
                state["second"][part].lerp_(square, share)
            return torch.ones(1, device=matrix.device), state["second"].rsqrt()
        height, width = matrix.shape
        sums = torch.zeros_like(state["columns"])
        means = torch.zeros_like(state["rows"])
        for rows, columns in _blocks(matrix):
            square = _square(matrix[rows, columns])
            means[rows] += square.sum(1)
            sums[columns] += square.sum(0)
        state["rows"].lerp_(means.div_(width).add_(self.FLOOR), share)
        state["columns"].lerp_(sums.div_(height).add_(self.FLOOR), share)
        return (state["rows"] / state["rows"].mean()).rsqrt_(), state["columns"].rsqrt()

    @staticmethod
    def state_bytes(parameter: Tensor) -> int:
        """Return 4 bytes a row and a column, or a number of a vector."""
        return 4 * sum(_factors(parameter).values())


def _factors(parameter: Tensor) -> dict[str, int]:
    """Return the lengths of Adafactor's states."""
    if parameter.dim() < 2:
        return {"second": parameter.numel()}
    return {"rows": len(parameter), "columns": parameter.numel() // len(parameter)}


def _adam(gradient: Tensor, first: Tensor, second: Tensor, step: int) -> Tensor:
    """Move the moments in place and return the direction of AdamW, algorithm 2, lines 7-12."""
    low, high = BETAS
    first.lerp_(gradient, 1 - low)
    second.mul_(high).addcmul_(gradient, gradient, value=1 - high)
    size = (second / (1 - high**step)).sqrt_().add_(ADAM_EPSILON)
    return (first / (1 - low**step)).div_(size)


def _square(gradient: Tensor) -> Tensor:
    """Return its squares as new float32 numbers."""
    return gradient.to(torch.float32, copy=True).square_()


def _chunks(count: int) -> Iterator[slice]:
    for start in range(0, count, CHUNK):
        yield slice(start, min(start + CHUNK, count))


def _blocks(matrix: Tensor) -> Iterator[tuple[slice, slice]]:
    """Yield (rows, columns) of parts of at most CHUNK numbers that are contiguous in `matrix`."""
    height, width = matrix.shape
    if width > CHUNK:
        yield from ((slice(i, i + 1), part) for i in range(height) for part in _chunks(width))
        return
    tall = max(1, CHUNK // max(1, width))
    for start in range(0, height, tall):
        yield slice(start, min(start + tall, height)), slice(0, width)
