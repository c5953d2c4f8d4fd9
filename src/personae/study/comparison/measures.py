"""All that a comparison has numbers for: metrics, what is derived from them, and costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from personae.core.registry import discover
from personae.evaluation.metric import Better, Metric
from personae.evaluation.scores import Score

Form = Literal["number", "share", "cost"]


@dataclass(frozen=True, slots=True)
class Measure:
    """What a number means.

    Attributes:
        name: in results. title: for people. unit: of the number.
        better: which direction is better.
        form: how it is shown: a plain number, a share in per cent, or a cost with its unit.
        source: where its definition comes from.
    """

    name: str
    title: str
    unit: str
    better: Better
    form: Form
    source: str = ""


DERIVED = {
    "balance": Measure(
        "balance",
        "likeness x agreement",
        "product",
        "higher",
        "number",
        "concept preservation x prompt following, as in DreamBench++ (arXiv:2406.16855)",
    ),
    "likeness_share": Measure(
        "likeness_share",
        "likeness, of the ceiling",
        "share",
        "higher",
        "share",
        "likeness / leave-one-out likeness of the real pictures",
    ),
    "agreement_share": Measure(
        "agreement_share",
        "agreement with the prompt, of real pictures",
        "share",
        "higher",
        "share",
        "0: as much as with the suite's other prompts; 1: what real pictures of the prompts reach",
    ),
    "copies": Measure(
        "copies",
        "copies of training pictures",
        "share of pictures",
        "lower",
        "share",
        "memorisation above the greatest resemblance among the real pictures",
    ),
}

COSTS = {
    "seconds": Measure("seconds", "training time", "s", "lower", "cost"),
    "peak_bytes": Measure("peak_bytes", "peak memory of training", "bytes", "lower", "cost"),
    "added_bytes": Measure("added_bytes", "memory that training adds", "bytes", "lower", "cost"),
    "parameters": Measure("parameters", "trained parameters", "", "lower", "cost"),
    "file_bytes": Measure("file_bytes", "file size", "bytes", "lower", "cost"),
    "load_seconds": Measure("load_seconds", "loading from the file", "s", "lower", "cost"),
    "switch_seconds": Measure("switch_seconds", "switching to it", "s", "lower", "cost"),
    "seconds_per_picture": Measure(
        "seconds_per_picture", "drawing a picture", "s", "lower", "cost"
    ),
}


ORDER = (
    *("balance", "likeness_share", "agreement_share", "right_prompt", "likeness"),
    *("prompt_following", "agreement", "consistency", "medium_adherence"),
    *("diversity", "drift", "prior_collapse", "copies", "memorisation", "clip_i"),
    *COSTS,
)
"""Where a measure stands in tables: what decides first, metrics of other packages last."""


def measured(name: str) -> Measure:
    """Return what the measure, metric or cost called `name` means."""
    if name in DERIVED:
        return DERIVED[name]
    if name in COSTS:
        return COSTS[name]
    metric = discover(Metric)[name]
    form: Form = "share" if metric.unit.startswith("share of") else "number"
    return Measure(name, metric.title, metric.unit, metric.better, form, metric.source)


def derived_values(
    metrics: Mapping[str, Score], *, scaled: bool = True
) -> Iterator[tuple[str, Sequence[Any], Sequence[float | None]]]:
    """Yield (name, keys, values per picture) of what follows from the metrics of one cell.

    Args:
        metrics: of the cell.
        scaled: whether agreement is known on its scale, in this cell and all it is compared with;
            if not, the product has the raw cosine in its place, as results of before had.
    """
    likeness, agreement = metrics.get("likeness"), metrics.get("agreement")
    shares, agreements = _shares(likeness), []
    if shares:
        yield "likeness_share", likeness.keys, shares
    if scaled and has_scale(metrics):
        agreement = metrics["prompt_following"]
        agreements = _shares(agreement)
        yield "agreement_share", agreement.keys, agreements
    elif agreement:
        agreements = [max(0.0, value or 0.0) for value in agreement.values]
    if shares and agreements and agreement.keys == likeness.keys:
        # A picture may agree less with its prompt than with others; cut off at 0, chance would
        # leave something of a technique that ignores all prompts.
        products = [
            max(0.0, mine or 0.0) * (theirs or 0.0)
            for mine, theirs in zip(shares, agreements, strict=True)
        ]
        yield "balance", likeness.keys, products
    copies = metrics["memorisation"].details.get("copies") if "memorisation" in metrics else None
    if copies:
        yield "copies", metrics["memorisation"].keys, [float(copy) for copy in copies]


def has_scale(metrics: Mapping[str, Score]) -> bool:
    """Say whether agreement with prompts was measured against real pictures of them."""
    return bool(_shares(metrics.get("prompt_following")))


def _shares(score: Score | None) -> list[float | None]:
    """Return the values as shares of the ceiling; [] where there is no value or no ceiling."""
    if score is None or not score.values or not score.ceiling or score.ceiling <= 0:
        return []
    return [None if value is None else value / score.ceiling for value in score.values]
