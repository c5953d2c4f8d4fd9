"""A finding: one thing about a training set that a person should know or mend."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

FEW: Final = 3
"""Findings of a kind that are shown one by one; more are shown as one group."""

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


def grouped(findings: Iterable[Finding]) -> list[tuple[Finding, int]]:
    """Return findings as (the first of its kind, how many there are), most important first.

    Errors go before warnings, warnings before notes; within a level those of most files come first.
    Kinds of at most `FEW` findings are returned one by one.
    """
    kinds: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        kinds.setdefault((finding.level, finding.code), []).append(finding)
    order = ("error", "warning", "note")
    groups = sorted(kinds.values(), key=lambda group: (order.index(group[0].level), -len(group)))
    return [
        row
        for group in groups
        for row in ([(group[0], len(group))] if len(group) > FEW else [(one, 1) for one in group])
    ]
