"""A finding: one thing about a training set that a person should know or mend."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

FEW: Final = 3
"""Findings of a kind that are shown one by one; more are shown as one group."""

Level = Literal["error", "warning", "note"]
LEVELS: Final[tuple[Level, ...]] = get_args(Level)
"""The gravest first."""


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


def by_level(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return findings with the gravest first, those of a level in the order they came."""
    return tuple(sorted(findings, key=lambda finding: LEVELS.index(finding.level)))


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
