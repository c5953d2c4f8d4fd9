"""A finding: one thing about a training set that a person should know or mend."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Level = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know or to mend.

    Attributes:
        level: "error" keeps training from starting or spoils it, "warning" costs quality, "note"
            is good to know.
        code: short name of the kind of finding, the same in every version.
        file: the picture, caption or folder it is about.
        message: what was found and what to do, on one line.
    """

    level: Level
    code: str
    file: Path
    message: str
