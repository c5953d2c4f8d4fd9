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
    *("balance", "likeness_share", "likeness", "agreement", "consistency", "medium_adherence"),
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
    return Measure(name, metric.title, metric.unit, metric.better, "number", metric.source)


def derived_values(
    metrics: Mapping[str, Score],
) -> Iterator[tuple[str, Sequence[Any], Sequence[float | None]]]:
    """Yield (name, keys, values per picture) of what follows from the metrics of one cell."""
    likeness, agreement = metrics.get("likeness"), metrics.get("agreement")
    shares = _shares(likeness)
    if shares:
        yield "likeness_share", likeness.keys, shares
    if shares and agreement and agreement.keys == likeness.keys:
        agreements = [max(0.0, value or 0.0) for value in agreement.values]
        yield (
            "balance",
            likeness.keys,
            [
                max(0.0, mine or 0.0) * theirs
                for mine, theirs in zip(shares, agreements, strict=True)
            ],
        )
    copies = metrics["memorisation"].details.get("copies") if "memorisation" in metrics else None
    if copies:
        yield "copies", metrics["memorisation"].keys, [float(copy) for copy in copies]


def _shares(likeness: Score | None) -> list[float | None]:
    if likeness is None or not likeness.values or not likeness.ceiling or likeness.ceiling <= 0:
        return []
    return [None if value is None else value / likeness.ceiling for value in likeness.values]
