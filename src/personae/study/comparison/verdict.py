"""Which technique to take, in words: the best balance of likeness and agreement within limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from personae.core.units import count, show
from personae.study.comparison.comparison import Comparison
from personae.study.comparison.encoders import disagreement, encoder_views
from personae.study.comparison.limits import Limits
from personae.study.comparison.rows import Row

RULE = (
    "The choice has the highest product of likeness and agreement with the prompt. Likeness runs "
    "from 0, other characters, to 100%, the character's own pictures, and is the mean of both "
    "encoders; agreement from 0, any prompt, to 100%, real pictures of the prompts. It is a choice "
    "only if its lead is larger than the smallest difference the study can see, and if each "
    "encoder puts it first."
)
ONE_ENCODER = (
    "Likeness was judged by one encoder alone. If it learnt from the same pictures as the base, it "
    "may prefer a technique for that; pip install personae[judge] and run the study again."
)
UNSCALED = (
    "Agreement is a plain cosine here, which hardly tells prompts that are followed from prompts "
    "that are ignored: the results are older, or the suite has no real pictures and the character "
    "too few captions. Caption the pictures and run the study again."
)
MANY_COPIES = 0.25  # as the bound of training/selection_rules.py: one picture in four


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the study advises.

    Attributes:
        choice: name of the row to take, or None if the study does not decide.
        headline: the choice in one sentence.
        others: a sentence on each other technique.
        cautions: what to know before believing it.
        rule: how the choice is made.
    """

    choice: str | None
    headline: str
    others: list[str] = field(default_factory=list)
    cautions: list[str] = field(default_factory=list)
    rule: str = RULE


def decide(comparison: Comparison, limits: Limits) -> Verdict:
    """Return the verdict on a comparison."""
    excluded = {row.name: limits.broken_by(row.cost_means) for row in comparison.trained}
    allowed = [row for row in comparison.trained if not excluded[row.name]]
    best = best_of(allowed)
    headline, choice = _decision(comparison, allowed, best, limits)
    others = [
        _compared(row, best, comparison)
        if best is not None and not excluded[row.name]
        else f"{row.title} is out: {'; '.join(excluded[row.name])}. {_reach(row)}."
        for row in _by_balance(comparison.trained)
        if row is not best
    ]
    if best is not None and choice is None:
        others.insert(0, f"{best.title} {_reach(best).removeprefix('It ')}.")
    before = comparison.untouched
    if before and before.mean("likeness_share") is not None:
        others.append(f"The untouched base reaches {before.mean('likeness_share'):.0%}.")
    cautions = _cautions(comparison, best, allowed)
    return Verdict(choice.name if choice else None, headline, others, cautions)


def _decision(
    comparison: Comparison, allowed: Sequence[Row], best: Row | None, limits: Limits
) -> tuple[str, Row | None]:
    """Return the headline, and the row to take or None where nothing is decided."""
    subject = _listed(comparison.characters)
    if best is None:
        return f"For {subject}: no technique is within {limits.text}.", None
    if _no_better(best, comparison):
        headline = (
            f"For {subject} nothing is decided: {best.title} would be taken, but it is no more "
            "like the character than the untouched base. Train longer, or at higher rates."
        )
        return headline, None
    if doubt := undecided(comparison, allowed):
        return f"For {subject}: undecided. {doubt}", None
    return f"For {subject} on this machine: {best.title}. {_reach(best)}.", best


def undecided(comparison: Comparison, rows: Sequence[Row]) -> str | None:
    """Return in words why none of `rows` can be called the best, or None if one can."""
    equals, resolution = rivals(comparison, rows), comparison.visible("balance")
    if len(equals) > 1 and np.isnan(resolution):
        return "Likeness x agreement is not known well enough to compare. Draw more shots."
    if len(equals) > 1:
        names = _listed([row.title for row in equals])
        fastest = min(equals, key=_seconds)
        return (
            f"{names} are nearer to each other in likeness x agreement than the "
            f"{resolution:.2f} that this study can see; {fastest.title} trains "
            "fastest of them. More seeds or shots would tell."
        )
    firsts = {view.name: view.best for view in encoder_views(comparison, rows)}
    if len({row.name for row in firsts.values()}) > 1:
        told = _listed([f"{row.title} by {name}" for name, row in firsts.items()])
        return f"The encoders disagree about the best: {told}. Look at the pictures."
    return None


def rivals(comparison: Comparison, rows: Sequence[Row]) -> list[Row]:
    """Return the row with the best balance and those not clearly behind it, best first.

    Clearly behind is what differs beyond a tie and by at least the smallest difference that the
    study finds with the usual power.
    """
    ordered, resolution = _by_balance(rows), comparison.visible("balance")
    tied = {row.name for row in leaders(rows)}
    return [
        row
        for row in ordered
        if row.name in tied
        or not (ordered[0].mean("balance") or 0.0) - (row.mean("balance") or 0.0) >= resolution
    ]


def best_of(rows: Sequence[Row]) -> Row | None:
    """Return the row with the best balance; of those tied with it, the one that trains fastest."""
    return min(leaders(rows), key=_seconds, default=None)


def leaders(rows: Sequence[Row]) -> list[Row]:
    """Return the row with the best balance and those tied with it, best first."""
    ordered = _by_balance(rows)
    ties = ordered[0].ranks["balance"].ties if ordered and "balance" in ordered[0].ranks else ()
    return [row for row in ordered if row is ordered[0] or row.name in ties]


def _seconds(row: Row) -> float:
    return row.cost_means.get("seconds", float("inf"))


def _by_balance(rows: Sequence[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: -(row.mean("balance") or 0.0))


def _reach(row: Row) -> str:
    """Return what a row reaches and costs: "It reaches 93 % of ... in 58 s and 1.6 MB"."""
    share, costs = row.mean("likeness_share"), row.cost_means
    reached = f"reaches {share:.0%} of the likeness" if share is not None else "is trained"
    second = row.mean("likeness_share_second")
    if second is not None:
        reached += f" ({second:.0%} by the second encoder)"
    agreement, right = row.mean("agreement_share"), row.mean("right_prompt")
    if agreement is not None:
        reached += f" and {agreement:.0%} of the agreement with prompts that real pictures have"
    if right is not None:
        reached += f" (the right prompt is found in {right:.0%})"
    cost = [
        show(name, costs[name]) + word
        for name, word in (("seconds", ""), ("file_bytes", ""), ("peak_bytes", " of memory"))
        if name in costs
    ]
    return f"It {reached} in {_listed(cost)}" if cost else f"It {reached}"


def _compared(row: Row, choice: Row, comparison: Comparison) -> str:
    likeness = comparison.difference(comparison.likeness, row, choice)
    agreement = comparison.difference(comparison.agreement, row, choice)
    share, second = row.mean("likeness_share"), row.mean("likeness_share_second")
    both = f" and {second:.0%}" if second is not None else ""
    words = [
        f"reaches {share:.0%}{both}" if share is not None else "has no likeness",
        "(a tie)" if likeness.tie else f"({_points(likeness.interval.mean)})",
    ]
    if not agreement.tie:
        words.append(f"and agrees {'more' if agreement.interval.mean > 0 else 'less'} with prompts")
    costs = _relations(row, choice)
    but = f", {costs}" if costs else ""
    return f"{row.title} {' '.join(words)}{but}."


def _points(gap: float) -> str:
    """Return a difference of shares in words: "2 points more"."""
    size = f"{abs(gap) * 100:.0f}" if abs(gap) >= 0.015 else f"{abs(gap) * 100:.1f}"
    return f"{size} points {'more' if gap > 0 else 'less'}"


def _relations(row: Row, choice: Row) -> str:
    """Return how a row's costs relate to the choice's: "takes 3.1x as long; its file is 47 MB"."""
    mine, theirs = row.cost_means, choice.cost_means
    told = []
    if mine.get("seconds") and theirs.get("seconds"):
        told.append(f"takes {mine['seconds'] / theirs['seconds']:.1f}x as long")
    if "file_bytes" in mine:
        told.append(f"makes a file of {show('file_bytes', mine['file_bytes'])}")
    if "peak_bytes" in mine:
        told.append(f"needs {show('peak_bytes', mine['peak_bytes'])} of memory")
    return _listed(told)


def _no_better(row: Row, comparison: Comparison) -> bool:
    """Say whether a row's likeness is not above the untouched base's beyond the noise."""
    before = comparison.untouched
    return (
        before is not None and not comparison.difference("likeness", row, before).interval.low > 0
    )


def _cautions(comparison: Comparison, best: Row | None, allowed: Sequence[Row]) -> list[str]:
    told = []
    smallest = comparison.visible(comparison.likeness)
    if smallest == smallest:
        told.append(
            f"Differences in likeness below {smallest * 100:.2g}% cannot be seen in this study; "
            "more seeds or shots would show smaller ones."
        )
    split = disagreement(comparison, allowed)
    if split:
        told.append(split)
    elif not any("likeness_share_second" in row.values for row in comparison.trained):
        told.append(ONE_ENCODER)
    if not any("agreement_share" in row.values for row in comparison.trained):
        told.append(UNSCALED)
    if best is not None and (best.mean("copies") or 0.0) > MANY_COPIES:
        told.append(f"{best.mean('copies'):.0%} of its pictures copy a training picture.")
    told.extend(filter(None, map(_warned, comparison.trained)))
    found = [each for row in comparison.rows for each in row.cells]
    beside = max(each.result.side_by_side for each in found)
    if beside > 1:
        told.append(f"Up to {beside} cells ran side by side, so all times are longer than alone.")
    if comparison.unusable:
        missing = len(comparison.unusable)
        does = "does" if missing == 1 else "do"
        told.append(f"{count(missing, 'cell')} without a usable result {does} not count.")
    return told


def _warned(row: Row) -> str | None:
    """Return what the learning monitor warned of in the trainings of a row, or None."""
    warned = [each for each in row.cells if each.warnings]
    if not warned:
        return None
    first = warned[0]
    told = first.warnings[0]
    share = f" ({len(warned)} of {len(row.cells)} trainings)" if len(row.cells) > 1 else ""
    return (
        f"{row.title} was warned{share}: {first.character}, training seed {first.seed}, step "
        f"{told.step}: {told.message}."
    )


def _listed(words: Sequence[str]) -> str:
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"
