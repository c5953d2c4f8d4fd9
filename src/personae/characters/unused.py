"""A file that a reading found and left: nothing of a person's data is left out without a word."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Unused:
    """A picture, caption or mask that is not used.

    Attributes:
        path: the file.
        reason: why, and what to do, as the end of a line that begins with the file.
    """

    path: Path
    reason: str
