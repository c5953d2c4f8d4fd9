"""The schema of result.json: read back as written, and damaged files refused in one line."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from personae.errors import StudyError
from personae.reports.study_report import write_report
from personae.study.cell import Cell
from personae.study.comparison.comparison import Comparison
from personae.study.comparison.limits import Limits
from personae.study.result import CellFailure, CellResult, read_result
from personae.study.study import Study
from study_world import finished

FINDINGS = {"lora": {"likeness": 0.7}, "untouched": {}, "real": {}}


@pytest.fixture
def study(character: Path, tmp_path: Path) -> Study:
    values = {"character": str(character), "technique": ["lora", "dreambooth"]}
    return finished(tmp_path / "study", values, FINDINGS | {"dreambooth": {"likeness": 0.6}})


def cell_of(study: Study, row: str) -> Cell:
    return next(cell for cell in study.cells if cell.spec.row == row)


def stored(cell: Cell) -> dict[str, Any]:
    return json.loads(cell.result_file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("row", ["lora", "untouched", "real"])
def test_a_result_is_read_back_as_it_was_written_and_keeps_unknown_keys(
    row: str, study: Study
) -> None:
    cell = cell_of(study, row)
    before = {**stored(cell), "of_a_later_version": [1]}
    cell.result_file.write_text(json.dumps(before), encoding="utf-8")
    result = cell.result()
    assert isinstance(result, CellResult)
    cell.write_result(result)
    assert stored(cell) == before
    assert cell.result() == result


def test_a_failure_is_read_back_and_a_missing_result_is_none(study: Study) -> None:
    cell = cell_of(study, "lora")
    cell.fail("out of memory")
    assert stored(cell) == {
        "format_version": 2,
        "row": "lora",
        "status": "failed",
        "error": "out of memory",
    }
    assert cell.result() == CellFailure(row="lora", error="out of memory")
    cell.result_file.unlink()
    assert read_result(cell.result_file) is None


Change = Callable[[dict[str, Any]], Any]
DAMAGE: dict[str, Change] = {
    "no costs": lambda r: r.pop("costs"),
    "costs of words": lambda r: r["costs"].update(seconds="long"),
    "endless cost": lambda r: r["costs"].update(seconds=float("inf")),
    "cost beyond floats": lambda r: r["costs"].update(peak_bytes=10**400),
    "no character": lambda r: r["character"].pop("name"),
    "base is a word": lambda r: r.update(base="toon"),
    "no curve": lambda r: r.pop("curve"),
    "no training": lambda r: r.pop("training"),
    "no recipe": lambda r: r.pop("recipe"),
    "scores of another format": lambda r: r["scores"].update(format=9),
    "scores are a list": lambda r: r.update(scores=[1]),
    "values of words": lambda r: r["scores"]["metrics"]["likeness"].update(values=["a"] * 8),
    "a value too few": lambda r: r["scores"]["metrics"]["likeness"]["values"].pop(),
    "a copy too few": lambda r: r["scores"]["metrics"]["memorisation"]["details"]["copies"].pop(),
    "keys of words": lambda r: r["scores"]["metrics"]["likeness"].update(keys=["a"] * 8),
    "a file elsewhere": lambda r: r["pictures"][0].update(file="../../other.png"),
    "no row": lambda r: r.pop("row"),
    "another status": lambda r: r.update(status="perhaps"),
    "step is a word": lambda r: r["curve"]["loss"].append(["a", 1]),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_result_is_named_with_what_to_do_and_the_report_goes_on_without_it(
    damage: str, study: Study
) -> None:
    cell = cell_of(study, "lora")
    values = copy.deepcopy(stored(cell))
    DAMAGE[damage](values)
    cell.result_file.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(StudyError, match=r"is damaged .*; run the study again") as refusal:
        read_result(cell.result_file)
    assert str(cell.result_file) in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert Comparison.of(study).unusable == {cell.name: str(refusal.value)}


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", '"a"', "null", "[" * 100_000, "9" * 5000, '{"a": NaN', "\ud800"]
)
def test_what_is_no_table_is_damaged(text: str, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(StudyError, match="is damaged"):
        read_result(file)


def test_a_report_says_how_many_cells_it_lacks(study: Study) -> None:
    cell_of(study, "dreambooth").result_file.write_text("{", encoding="utf-8")
    report = write_report(study, Limits.parse(None))
    assert "1 cell without a usable result does not count." in report.verdict.cautions
    page = report.page.read_text(encoding="utf-8")
    assert "1 cell without a usable result</summary>" in page
    assert "is damaged" in page
