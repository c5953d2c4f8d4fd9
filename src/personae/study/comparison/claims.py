"""The paper's claims, held against the numbers of a study: confirmed, refuted or undecided."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from personae.core.config import Config, read_toml
from personae.core.units import show
from personae.evaluation.statistics import CONFIDENCE
from personae.study.comparison.comparison import Comparison
from personae.study.comparison.measures import COSTS, LIKENESS_SHARES, measured
from personae.study.comparison.rows import Row

Outcome = Literal["confirmed", "refuted", "undecided"]
ALIKE = 0.1
"""Costs of a single run closer than a tenth are called alike: timings repeat no better than that
on a machine that does other things too."""


class ClaimTest(Config):
    """One comparison a claim stands on."""

    technique: str
    """A technique, or every."""
    measure: str
    """A metric or a cost."""
    is_: Literal["above", "below"] = Field(default="below", alias="is")
    """Where the technique should be; `is` in the file."""
    against: list[str] | Literal["others", "untouched"] = "others"
    """What it is compared with."""
    at_most: float | None = None
    """An amount to stay below, in place of a comparison."""


class Claim(Config):
    """A sentence and the comparisons that decide it."""

    id: str
    """Short name."""
    text: str
    """What is claimed."""
    tests: list[ClaimTest]
    """All must hold."""


class Claims(Config):
    """A list of claims."""

    claims: list[Claim]
    """In the order they are shown."""


@dataclass(frozen=True, slots=True)
class ClaimEvidence:
    """One comparison with its numbers."""

    outcome: Outcome
    text: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """A claim, what became of it, and the comparisons behind."""

    id: str
    text: str
    outcome: Outcome
    evidence: tuple[ClaimEvidence, ...]


def judge_claims(comparison: Comparison, file: Path | None = None) -> list[Judgement]:
    """Hold the claims of a TOML file, by default the paper's, against a comparison.

    A claim whose techniques are not in the study, or are there at several settings, is left out.
    """
    file = file or Path(__file__).with_name("claims.toml")
    claims = Claims.parse(read_toml(file), where=str(file)).claims
    judged = (_judge(claim, comparison) for claim in claims)
    return [judgement for judgement in judged if judgement is not None]


def _judge(claim: Claim, comparison: Comparison) -> Judgement | None:
    """Judge all comparisons of a claim together.

    To confirm it all of them must hold, and each alone at the usual confidence is strict enough
    (an intersection-union test: Berger 1982, Technometrics 24, 295). To refute it one the other
    way round is enough, so that one must be clear at a confidence shared by all (Bonferroni).
    Where several encoders look at likeness, a comparison says what all of them say.
    """
    found = [(test, *pair) for test in claim.tests for pair in _pairs(test, comparison)]
    strict = 1 - (1 - CONFIDENCE) / max(1, len(found))
    compared = []
    for test, row, other in found:
        seen = (
            _amount(each, row) if other is None else _versus(each, row, other, comparison, strict)
            for each in _by_each_encoder(test)
        )
        compared.append([each for each in seen if each is not None])
    outcomes = [_agreed([each.outcome for each in seen]) for seen in compared if seen]
    if not outcomes:
        return None
    evidence = tuple(each for seen in compared for each in seen)
    return Judgement(claim.id, claim.text, _together(outcomes), evidence)


def _by_each_encoder(test: ClaimTest) -> list[ClaimTest]:
    """Return the test for every encoder that may have looked, if likeness is what it is about."""
    seen = LIKENESS_SHARES if test.measure in LIKENESS_SHARES else [test.measure]
    return [test.model_copy(update={"measure": name}) for name in seen]


def _agreed(outcomes: Sequence[Outcome]) -> Outcome:
    return outcomes[0] if len(set(outcomes)) == 1 else "undecided"


def _together(outcomes: Sequence[Outcome]) -> Outcome:
    if "refuted" in outcomes:
        return "refuted"
    return "undecided" if "undecided" in outcomes else "confirmed"


def _pairs(test: ClaimTest, comparison: Comparison) -> Iterator[tuple[Row, Row | None]]:
    """Yield the rows a test compares; an amount is compared with no row."""
    rows = {row.name: row for row in comparison.trained}
    names = list(rows) if test.technique == "every" else [test.technique]
    for row in (rows[name] for name in names if name in rows):
        if test.at_most is not None:
            yield row, None
        elif test.against == "untouched":
            if comparison.untouched:
                yield row, comparison.untouched
        elif test.against == "others":
            yield from ((row, other) for other in rows.values() if other is not row)
        else:
            yield from ((row, rows[name]) for name in test.against if name in rows)


def _amount(test: ClaimTest, row: Row) -> ClaimEvidence | None:
    amount = row.mean(test.measure)
    if amount is None or test.at_most is None:
        return None
    outcome: Outcome = "confirmed" if amount <= test.at_most else "refuted"
    told = f"{show(test.measure, amount)}, bound {show(test.measure, test.at_most)}"
    return ClaimEvidence(outcome, f"{measured(test.measure).title} of {row.title}: {told}")


def _versus(
    test: ClaimTest, row: Row, other: Row, comparison: Comparison, strict: float
) -> ClaimEvidence | None:
    mine, theirs = row.mean(test.measure), other.mean(test.measure)
    if mine is None or theirs is None:
        return None
    difference = comparison.difference(test.measure, row, other)
    gap, interval = mine - theirs, difference.interval
    cost = test.measure in COSTS
    if not cost:
        gap = interval.mean
    holds = (gap > 0) == (test.is_ == "above")
    if not holds:
        difference = comparison.difference(test.measure, row, other, confidence=strict)
    tie = difference.tie
    if cost:
        # Costs are compared as ratios; a single run has no interval, so a margin stands for it.
        tie = abs(gap) <= ALIKE * max(mine, theirs) or (interval.units > 1 and tie)
        told = f"{show(test.measure, mine)} against {show(test.measure, theirs)}"
    else:
        told = f"{mine:.3f} against {theirs:.3f}, difference {gap:+.3f}"
        if interval.units > 1:
            told += f" [{interval.low:+.3f}, {interval.high:+.3f}]"
    outcome: Outcome = "undecided" if tie else "confirmed" if holds else "refuted"
    title = measured(test.measure).title
    return ClaimEvidence(outcome, f"{title}, {row.title} and {other.title}: {told}")
