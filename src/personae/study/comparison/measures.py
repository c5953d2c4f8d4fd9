"""All that a comparison has numbers for: metrics, what is derived from them, and costs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
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


LIKENESS_SHARES = {"likeness": "likeness_share", "likeness_second": "likeness_share_second"}
"""{metric of likeness, one for each encoder: its share of what the character's own pictures reach}.
"""
RAW = ("likeness", "likeness_second", "prompt_following", "agreement", "clip_i", "memorisation")
"""Plain values, which mean something beside values of papers and not by themselves."""

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
        "likeness, first encoder",
        "share",
        "higher",
        "share",
        "0: what other characters reach; 1: the character's own pictures, each left out in turn",
    ),
    "likeness_share_second": Measure(
        "likeness_share_second",
        "likeness, second encoder",
        "share",
        "higher",
        "share",
        "the same by an encoder that learnt from other pictures than the base",
    ),
    "likeness_both": Measure(
        "likeness_both",
        "likeness, mean of both",
        "share",
        "higher",
        "share",
        "mean of what both encoders say of a picture; the product takes it",
    ),
    "agreement_share": Measure(
        "agreement_share",
        "agreement with the prompt",
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
    *("balance", "likeness_both", "likeness_share", "likeness_share_second"),
    *("agreement_share", "right_prompt"),
    *("consistency", "medium_adherence", "diversity", "drift", "prior_collapse", "copies"),
    *RAW,
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
    seen, agreements = [], []
    for metric, share in LIKENESS_SHARES.items():
        if metric in metrics and metrics[metric].shares():
            seen.append(metrics[metric].shares())
            yield share, metrics[metric].keys, seen[-1]
    if likeness is not None and len(seen) > 1:
        both = [_mean(each) for each in zip(*seen, strict=True)]
        yield "likeness_both", likeness.keys, both
    if scaled and has_scale(metrics):
        agreement = metrics["prompt_following"]
        agreements = agreement.shares()
        yield "agreement_share", agreement.keys, agreements
    elif agreement:
        agreements = [max(0.0, value or 0.0) for value in agreement.values]
    same = likeness is not None and agreement is not None and agreement.keys == likeness.keys
    if seen and agreements and likeness is not None and same:
        yield "balance", likeness.keys, products(zip(*seen, strict=True), agreements)
    copies = metrics["memorisation"].details.get("copies") if "memorisation" in metrics else None
    if copies:
        yield "copies", metrics["memorisation"].keys, [float(copy) for copy in copies]


def products(
    likenesses: Iterable[Iterable[float | None]], agreements: Iterable[float | None]
) -> list[float]:
    """Return likeness x agreement of each picture; likeness is the mean over the encoders.

    A picture may agree less with its prompt than with others; cut off at 0, chance would leave
    something of a technique that ignores all prompts.
    """
    return [
        max(0.0, _mean(likeness)) * (agreement or 0.0)
        for likeness, agreement in zip(likenesses, agreements, strict=True)
    ]


def _mean(values: Iterable[float | None]) -> float:
    return mean([value or 0.0 for value in values])


def has_scale(metrics: Mapping[str, Score]) -> bool:
    """Say whether agreement with prompts was measured against real pictures of them."""
    following = metrics.get("prompt_following")
    return following is not None and bool(following.shares())
