"""Optimiser states in 8 bits: blocks of 256 numbers share a scale, codes are powers.

Block-wise quantisation is that of Dettmers et al. 2021, arXiv:2110.02861, section 2.1. In the
place of their table a code k stands for (k / highest) ** power times the block's largest number,
which spends the levels on small numbers as theirs does and needs arithmetic alone. Codes are
rounded stochastically, since a moment that changes by less than half a level would never change,
and the second moment has no code for zero, by which it would be divided (Li et al. 2023,
arXiv:2309.01507, section 4.1).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 256


@dataclass(frozen=True, slots=True)
class CodeBook:
    """How numbers become codes.

    Attributes:
        dtype: int8 for numbers with a sign, uint8 for others.
        highest: code of a block's largest number.
        lowest: the smallest code that is used.
        power: 2 or 4.
    """

    dtype: torch.dtype
    highest: int
    lowest: int
    power: int

    def encode(self, values: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Return codes and scales of `values`; their expectation is `values`.

        Args:
            values: (blocks, BLOCK) float32.
            uniform: same shape, in [0, 1).

        Returns:
            Codes (blocks, BLOCK) and the largest magnitude of each block (blocks, 1), float32.
        """
        size = values.abs()
        scales = size.amax(1, keepdim=True)
        share = size.div_(scales.clamp(min=torch.finfo(torch.float32).tiny))
        below = self._root(share).mul_(self.highest).floor_()
        floor, ceiling = self._power(below), self._power(below + 1)
        chance = share.mul_(self.highest**self.power).sub_(floor).div_(ceiling.sub_(floor))
        code = below.add_(uniform < chance).clamp_(self.lowest, self.highest)
        return code.copysign_(values).to(self.dtype), scales

    def decode(self, codes: Tensor, scales: Tensor) -> Tensor:
        """Return the numbers (blocks, BLOCK) that codes and scales stand for, float32."""
        code = codes.float()
        value = self._power(code)
        if self.dtype is torch.int8:
            value = value.copysign_(code)
        return value.mul_(scales / self.highest**self.power)

    def _root(self, values: Tensor) -> Tensor:
        root = values.sqrt()
        return root if self.power == 2 else root.sqrt_()

    def _power(self, values: Tensor) -> Tensor:
        squared = values.square()
        return squared if self.power == 2 else squared.square_()


FIRST_MOMENT = CodeBook(torch.int8, highest=127, lowest=0, power=2)
SECOND_MOMENT = CodeBook(torch.uint8, highest=255, lowest=1, power=4)


class Quantised:
    """A vector of `count` numbers kept in 8 bits; read and written chunk by chunk.

    Attributes:
        codes: (blocks, BLOCK) of the book's format; scales: (blocks, 1) float32.
    """

    def __init__(self, book: CodeBook, codes: Tensor, scales: Tensor) -> None:
        self.book, self.codes, self.scales = book, codes, scales

    @staticmethod
    def zeros(book: CodeBook, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return codes and scales of `count` zeros."""
        blocks = -(-count // BLOCK)
        codes = torch.zeros(blocks, BLOCK, dtype=book.dtype, device=device)
        return codes, torch.zeros(blocks, 1, device=device)

    def read(self, start: int, count: int) -> Tensor:
        """Return numbers `start` .. `start + count`, float32; `start` is a multiple of BLOCK."""
        rows = _rows(start, count)
        return self.book.decode(self.codes[rows], self.scales[rows]).flatten()[:count]

    def write(self, start: int, values: Tensor, uniform: Tensor) -> None:
        """Write numbers from `start`; `uniform` in [0, 1) has their shape."""
        rows = _rows(start, len(values))
        missing = -len(values) % BLOCK
        if missing:
            values = torch.nn.functional.pad(values, (0, missing))
            uniform = torch.nn.functional.pad(uniform, (0, missing))
        codes, scales = self.book.encode(values.view(-1, BLOCK), uniform.reshape(-1, BLOCK))
        self.codes[rows], self.scales[rows] = codes, scales


def _rows(start: int, count: int) -> slice:
    first = start // BLOCK
    return slice(first, first + -(-count // BLOCK))
