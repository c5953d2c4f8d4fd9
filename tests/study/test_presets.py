"""Ready-made studies: what a fair and a brief comparison are."""

from __future__ import annotations

from pathlib import Path

import pytest

from personae.errors import UsageError
from personae.study.presets import FairComparison, brief_comparison, brief_training, every_technique


def test_a_fair_comparison_gives_all_techniques_the_same(character: Path, tmp_path: Path) -> None:
    study = FairComparison(seeds=2, suite="general").study([character], tmp_path)
    trained = [cell.spec for cell in study.cells if cell.spec.kind == "trained"]
    assert {spec.row for spec in trained} == set(every_technique())
    assert {spec.run.seed for spec in trained} == {0, 1}
    assert {spec.budget for spec in trained} == {"steps"}
    assert not any(spec.run.stop_early for spec in trained)
    assert len({spec.run.judging.model_dump_json() for spec in trained}) == 1
    assert trained[0].run.judging.suite == "general"
    assert {cell.spec.kind for cell in study.cells} == {"trained", "untouched", "real"}


def test_techniques_are_named_in_a_list_or_with_commas() -> None:
    wanted = ["lora", "textual_inversion+lora", "dreambooth"]
    for given in (wanted, "lora, textual_inversion+lora,dreambooth", [",".join(wanted)]):
        assert FairComparison.parse({"techniques": given}).techniques == wanted


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"seeds": 0}, "seeds"),
        ({"keep": "worst"}, "keep"),
        ({"techniques": 3}, "techniques"),
        ({"techniques": ["loar"]}, "loar"),
        ({"budget": "hours=1"}, "budget"),
    ],
)
def test_a_wrong_choice_is_refused_in_words(
    values: dict[str, object], word: str, character: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=word):
        FairComparison.parse(values).study([character], tmp_path)


def test_a_study_lies_below_studies_unless_told(character: Path) -> None:
    folder = FairComparison(techniques=["lora"]).study([character]).folder
    assert folder == Path("studies") / character.name


def test_a_brief_comparison_gives_every_technique_as_much(character: Path, tmp_path: Path) -> None:
    cells = brief_comparison(character, tmp_path, steps=100).cells
    rows = [cell.spec.row for cell in cells]
    assert {*every_technique(), "untouched", "real"} == set(rows)
    assert len(rows) == len(set(rows))
    trained = [cell.spec for cell in cells if cell.spec.kind == "trained"]
    assert {spec.run.schedule.batch_size for spec in trained} == {8}
    assert {spec.budget for spec in trained} == {"presentations=800"}


def test_a_brief_training_takes_the_steps_and_the_base_it_is_given(character: Path) -> None:
    run = brief_training(character, steps=5, base="owner/name")
    assert (run.character, run.base) == (character, "owner/name")
    assert (run.schedule.steps, run.schedule.batch_size) == (5, 8)
    assert brief_training(character, steps=5).base == "toon"
