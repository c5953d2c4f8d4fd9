"""Writing a report: from a folder of finished cells to files a person opens."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from personae.core.files import write_text
from personae.reports import curves, plots, study_pictures, summary
from personae.reports.explanations import explanations
from personae.reports.page import render
from personae.reports.table import table
from personae.study.comparison.claims import Judgement, judge_claims
from personae.study.comparison.comparison import Comparison
from personae.study.comparison.limits import Limits
from personae.study.comparison.measures import LIKENESS_SHARES
from personae.study.comparison.rows import FinishedCell, Row
from personae.study.comparison.verdict import Verdict, decide
from personae.study.result import CellSampling, CellTraining
from personae.study.study import Study

REPORT_FORMAT = 1
VISIBLE = ("balance", "likeness", *LIKENESS_SHARES.values(), "agreement_share", "agreement")
"""Measures of which the report says how small a difference the study can see."""
COLUMNS = (
    *("row", "measure", "unit", "better"),
    *("mean", "low", "high", "units", "place", "ties"),
)


@dataclass(frozen=True, slots=True)
class Report:
    """What was written.

    Attributes:
        page: the HTML file. result: all numbers as JSON. csv: the table. png: the summary.
        verdict: what the study advises.
    """

    page: Path
    result: Path
    csv: Path
    png: Path
    verdict: Verdict


def write_report(study: Study, limits: Limits, out: str | Path | None = None) -> Report:
    """Write `report.html`, `result.json`, `table.csv` and `summary.png`.

    Args:
        study: with at least one finished technique.
        limits: what the verdict must respect.
        out: where to; by default the study's own folder.

    Raises:
        StudyError: nothing can be compared yet.
    """
    folder = Path(out) if out else study.folder
    comparison = Comparison.of(study)
    verdict, claims = decide(comparison, limits), judge_claims(comparison)
    report = Report(
        page=folder / "report.html",
        result=folder / "result.json",
        csv=folder / "table.csv",
        png=folder / "summary.png",
        verdict=verdict,
    )
    write_text(report.page, page(comparison, verdict, claims))
    result = to_json(comparison, verdict, claims)
    write_text(report.result, json.dumps(result, indent=1, default=_plain) + "\n")
    write_text(report.csv, to_csv(comparison))
    summary.write(comparison, verdict, report.png)
    return report


def page(comparison: Comparison, verdict: Verdict, claims: list[Judgement]) -> str:
    """Return the HTML page; every picture, plot and script is inside it."""
    return render(
        "study.html",
        comparison=comparison,
        verdict=verdict,
        characters=study_pictures.characters(comparison),
        table=table(comparison),
        explanations=explanations(comparison),
        trade_offs=plots.trade_offs(comparison),
        dots=plots.dots(comparison),
        curves=curves.curves(comparison),
        claims=claims,
        facts=facts(comparison),
        cells=[_cell(each) for row in comparison.rows for each in row.cells],
        grid=(comparison.study.folder / "study.toml").read_text(encoding="utf-8"),
    )


def facts(comparison: Comparison) -> list[tuple[str, str]]:
    """Return what the whole study has in common, as (what, value)."""
    first = comparison.trained[0].cells[0]
    result = first.result
    trained = [each for row in comparison.trained for each in row.cells]
    # Each trained cell has both.
    training = [cast(CellTraining, each.result.training) for each in trained]
    recipe = cast(CellSampling, result.recipe)
    steps = sorted({each.steps for each in training})
    return [
        ("characters", ", ".join(comparison.characters)),
        ("base", f"{result.base.source} ({result.base.fingerprint})"),
        ("device, precision", f"{result.base.device}, {result.base.precision}"),
        ("budget", comparison.study.settings.budget),
        ("checkpoint kept", first.cell.spec.run.keep),
        ("steps kept", ", ".join(map(str, steps))),
        ("batch size", str(training[0].batch_size)),
        (
            "pictures",
            f"{result.character.pictures} to train on, "
            f"{result.character.held_out} held out (first character)",
        ),
        ("training seeds", ", ".join(map(str, sorted({each.seed for each in trained})))),
        (
            "drawn with",
            f"{recipe.sampler}, {recipe.steps} steps, guidance {recipe.guidance_scale:g}",
        ),
        ("pictures judged", f"{first.scores.pictures} for each technique, character and seed"),
        *[
            (f"encoder, {role.replace('_', ' ')}", name)
            for role, name in first.scores.encoders.items()
        ],
    ]


def _cell(found: FinishedCell) -> dict[str, str]:
    return {
        "name": found.cell.name,
        "row": found.cell.spec.row,
        "hash": (found.result.content_hash or "")[:16],
        "pictures": found.result.character.fingerprint[:16],
        "base": found.result.base.fingerprint,
    }


def to_json(comparison: Comparison, verdict: Verdict, claims: list[Judgement]) -> dict[str, Any]:
    """Return every number of the report as plain values."""
    return {
        "format_version": REPORT_FORMAT,
        "verdict": asdict(verdict),
        "rows": [_row(row) for row in comparison.rows],
        "measures": {name: asdict(measure) for name, measure in comparison.measures.items()},
        "smallest_visible": {
            name: comparison.visible(name) for name in VISIBLE if name in comparison.measures
        },
        "claims": [asdict(claim) for claim in claims],
        "facts": dict(facts(comparison)),
        "unusable": comparison.unusable,
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "title": row.title,
        "kind": row.kind,
        "cells": [each.cell.name for each in row.cells],
        "measures": {name: asdict(interval) for name, interval in row.intervals.items()},
        "ranks": {
            name: {"place": place.place, "ties": place.ties} for name, place in row.ranks.items()
        },
    }


def to_csv(comparison: Comparison) -> str:
    """Return one line per row and measure."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(_lines(comparison))
    return text.getvalue()


def _lines(comparison: Comparison) -> Iterator[list[Any]]:
    for row in comparison.rows:
        for name, interval in row.intervals.items():
            measure, place = comparison.measures[name], row.ranks.get(name)
            yield [
                row.name,
                name,
                measure.unit,
                measure.better,
                *(f"{value:.6g}" for value in (interval.mean, interval.low, interval.high)),
                interval.units,
                place.place if place else "",
                " ".join(place.ties) if place else "",
            ]


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else list(value)
