"""Which pictures are kept from training so that likeness can be measured on them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from personae.characters.duplicates import near_duplicates

SHARE: Final = 0.2
"""Share of the pictures held out by default: one of 5, four of 20."""

FEWEST: Final = 5
"""With fewer pictures than this every one is needed for training."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A picture that may be held out: its file and its difference hash."""

    path: Path
    difference_hash: int


def choose(candidates: Sequence[Candidate], share: float | None) -> frozenset[Path]:
    """Return the files to hold out.

    The choice depends on the bytes of the pictures alone, so it is the same on every machine and
    under every file name. A picture that nearly equals another is taken last, since its twin would
    be trained on.

    Args:
        candidates: the pictures, each file once.
        share: part to hold out, in [0, 0.5]; None is `SHARE` from `FEWEST` pictures on, else none.
    """
    count = len(candidates)
    if share is None:
        wanted = max(1, round(SHARE * count)) if count >= FEWEST else 0
    else:
        wanted = max(1, round(share * count)) if share > 0 and count > 1 else 0
    pairs = near_duplicates([candidate.difference_hash for candidate in candidates])
    doubled = {candidates[index].path for pair in pairs for index in pair}
    order = sorted(candidates, key=lambda c: (c.path in doubled, digest(c.path), c.path.name))
    return frozenset(candidate.path for candidate in order[:wanted])


def digest(path: Path) -> str:
    """Return the sha256 of a file in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
