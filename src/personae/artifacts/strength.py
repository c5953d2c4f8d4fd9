"""How strongly a character acts, over the course of sampling."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Self

from personae.errors import UsageError

LARGEST = 100
"""Far past every strength that draws anything; 1e308 times a small number is no number any more."""


@dataclass(frozen=True, slots=True)
class Strength:
    """A strength over the course of sampling.

    Attributes:
        keyframes: (progress in [0, 1], strength) in order; linear between, constant outside. Two
            keyframes at the same progress make a jump.
    """

    keyframes: tuple[tuple[float, float], ...] = ((0.0, 1.0),)

    @classmethod
    def parse(cls, text: str | float) -> Self:
        """Read "0.8" or "0:1, 0.5:1, 0.5:0".

        Raises:
            UsageError: the text is neither a number nor ordered progress:strength pairs.
        """
        try:
            numbers = [[float(n) for n in part.split(":")] for part in str(text).split(",")]
        except ValueError:
            numbers = []
        if len(numbers) == 1 and len(numbers[0]) == 1:
            numbers = [[0.0, *numbers[0]]]
        frames = tuple((part[0], part[-1]) for part in numbers if len(part) == 2)
        whole = len(frames) == len(numbers) > 0 and all(abs(v) <= LARGEST for _, v in frames)
        ordered = all(a[0] <= b[0] for a, b in pairwise(frames))
        if not whole or not ordered or not all(0 <= at <= 1 for at, _ in frames):
            raise UsageError(
                f"strength is '{text}'; expected a number such as 0.8 (-{LARGEST} to {LARGEST}), "
                "or progress:strength pairs in order such as 0:1,0.5:0.2"
            )
        return cls(frames)

    def at(self, progress: float) -> float:
        """Return the strength at `progress` in [0, 1]."""
        before = [frame for frame in self.keyframes if frame[0] <= progress]
        after = [frame for frame in self.keyframes if frame[0] > progress]
        if not before:
            return after[0][1]
        if not after:
            return before[-1][1]
        (start, low), (end, high) = before[-1], after[0]
        return low + (high - low) * (progress - start) / (end - start)

    def __str__(self) -> str:
        if len(self.keyframes) == 1:
            return f"{self.keyframes[0][1]:g}"
        return ",".join(f"{at:g}:{value:g}" for at, value in self.keyframes)
