"""What a user can afford: `memory=8GiB,size=10MB,minutes=20`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

from personae.core.registry import nearest
from personae.core.units import WORDS, parse_bytes, show
from personae.errors import UsageError


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise UsageError(f"'{text}' is no amount of time; expected a number above 0")
    return value


# {limit: (cost it bounds, how its amount is read, factor to the cost's unit)}
READERS: dict[str, tuple[str, Callable[[str], float], float]] = {
    "memory": ("peak_bytes", parse_bytes, 1),
    "size": ("file_bytes", parse_bytes, 1),
    "minutes": ("seconds", _number, 60),
    "seconds": ("seconds", _number, 1),
    "switch": ("switch_seconds", _number, 1),
}


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds on costs.

    Attributes:
        bounds: {cost: greatest amount, in bytes or seconds}.
        text: as the user wrote them.
    """

    bounds: Mapping[str, float]
    text: str = ""

    @classmethod
    def parse(cls, text: str | None) -> Self:
        """Read limits such as "memory=8GiB,size=10MB,minutes=20"; None or "" is no limit.

        Raises:
            UsageError: a limit is unknown or its amount cannot be read.
        """
        bounds: dict[str, float] = {}
        for part in filter(None, (part.strip() for part in (text or "").split(","))):
            name, _, amount = part.partition("=")
            if name not in READERS:
                raise UsageError(
                    f"limit is '{part}'; known are {', '.join(READERS)}, as in "
                    f"memory=8GiB,size=10MB,minutes=20.{nearest(name, READERS)}"
                )
            cost, read, factor = READERS[name]
            bounds[cost] = read(amount) * factor
        return cls(bounds, text or "")

    def broken_by(self, costs: Mapping[str, float]) -> list[str]:
        """Return in words which limits `costs` exceed."""
        return [
            f"{WORDS[cost]} is {show(cost, costs[cost])}, above {show(cost, bound)}"
            for cost, bound in self.bounds.items()
            if costs.get(cost) is not None and costs[cost] > bound
        ]
