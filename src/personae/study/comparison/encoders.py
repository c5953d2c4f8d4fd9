"""Whether the encoders that look at likeness put the techniques into one order.

An encoder may prefer a technique for what it shares with the base it learnt beside, so an order
counts where encoders of different upbringing see the same one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from personae.study.comparison.comparison import Comparison
from personae.study.comparison.measures import LIKENESS_SHARES, products
from personae.study.comparison.rows import Row

ROLES = {"likeness": "identity", "likeness_second": "second"}


@dataclass(frozen=True, slots=True)
class EncoderView:
    """What one encoder says of all techniques.

    Attributes:
        name: of the encoder.
        measure: its share of likeness.
        order: the rows by likeness, best first.
        best: the row with the highest product of its likeness and agreement.
    """

    name: str
    measure: str
    order: list[Row]
    best: Row


def encoder_views(comparison: Comparison, rows: Sequence[Row]) -> list[EncoderView]:
    """Return each encoder's view of `rows`; encoders that did not see all of them are left out."""
    found = []
    for metric, share in LIKENESS_SHARES.items():
        if rows and all(row.mean(share) is not None for row in rows):
            order = sorted(rows, key=lambda row: row.mean(share) or 0.0, reverse=True)
            best = max(rows, key=lambda row: _product(row, share))
            found.append(EncoderView(encoder_name(comparison, ROLES[metric]), share, order, best))
    return found


def disagreement(comparison: Comparison, rows: Sequence[Row]) -> str | None:
    """Return in words how the encoders order the rows differently, or None if they do not.

    Two rows count as ordered differently if each encoder has another one first, and at least one
    of the encoders sees the difference beyond its noise.
    """
    views = encoder_views(comparison, rows)
    if len(views) < 2:
        return None
    split = [pair for pair in combinations(rows, 2) if _split(comparison, views, *pair)]
    if not split:
        return None
    orders = "; ".join(
        f"by {view.name} "
        + ", ".join(f"{row.title} {row.mean(view.measure):.0%}" for row in view.order)
        for view in views
    )
    return f"The encoders disagree about the order of likeness: {orders}."


def _split(comparison: Comparison, views: Sequence[EncoderView], first: Row, second: Row) -> bool:
    gaps = [comparison.difference(view.measure, first, second) for view in views]
    signs = {gap.interval.mean > 0 for gap in gaps}
    return len(signs) > 1 and not all(gap.tie for gap in gaps)


def _product(row: Row, share: str) -> float:
    """Return the mean product of a row, with the likeness of one encoder."""
    agreement = row.values.get("agreement_share") or row.values.get("agreement", {})
    keys = [key for key in row.values[share] if key in agreement]
    mine = [[row.values[share][key]] for key in keys]
    return float(np.nanmean(products(mine, [agreement[key] for key in keys]))) if keys else 0.0


def encoder_name(comparison: Comparison, role: str) -> str:
    """Return the name of the encoder of a role, without its weights."""
    encoders = comparison.trained[0].cells[0].scores.encoders
    return encoders.get(role, role).split(" (")[0]
