"""Studies: grids, what is pending, what is not run twice, and what is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from personae.errors import StudyError, UsageError
from personae.study.cell import Cell
from personae.study.events import StudyFinished, StudyStarted
from personae.study.run import run_study
from personae.study.study import Study
from study_world import finished
from tiny_world import paint

FOUND = {"likeness": 0.7}


def rows(study: Study) -> list[str]:
    return [cell.spec.row for cell in study.cells]


def test_every_list_is_an_axis_and_the_cells_are_their_product(character, tmp_path):
    values = {
        "character": str(character),
        "technique": ["lora", "hypernetwork"],
        "seed": [0, 1, 2],
        "lora": {"rank": [4, 16]},
        "schedule": {"batch_size": [1, 2]},
    }
    study = Study.plan(values, tmp_path)
    trained = [cell.spec for cell in study.cells if cell.spec.kind == "trained"]
    assert len(trained) == 3 * 2 * 2 + 3 * 2
    assert {spec.run.seed for spec in trained} == {0, 1, 2}
    assert {
        (s.run.settings["lora"]["rank"], s.run.schedule.batch_size)
        for s in trained
        if s.run.technique == "lora"
    } == {(4, 1), (4, 2), (16, 1), (16, 2)}
    assert trained[0].swept == {"lora.rank": 4, "schedule.batch_size": 1}


def test_the_untouched_base_and_the_real_pictures_are_cells_of_their_own_once(character, tmp_path):
    study = Study.plan({"character": str(character), "seed": [0, 1]}, tmp_path)
    assert rows(study) == ["untouched", "real", "lora", "lora"]
    without = Study.plan({"character": str(character), "references": False}, tmp_path)
    assert rows(without) == ["lora"]


def test_the_same_settings_have_the_same_folder_and_others_another(character, tmp_path):
    def places(**values: object) -> set[Path]:
        study = Study.plan({"character": str(character), "references": False, **values}, tmp_path)
        return {cell.folder for cell in study.cells}

    assert places(seed=[0, 1]) > places(seed=0)
    assert not places(lora={"rank": 2}) & places()
    assert not places(budget="steps=3") & places()


def test_cells_of_before_there_was_a_second_encoder_are_found_in_their_folders(character, tmp_path):
    grid = {"character": str(character)}
    cell = Study.plan(grid, tmp_path).cells[-1]
    spec = cell.spec.model_dump_json().replace('"second":null,', "")
    assert '"second"' not in spec
    assert cell.name.endswith(hashlib.sha256(spec.encode()).hexdigest()[:8])
    other = Study.plan({**grid, "judging": {"second": "dino"}}, tmp_path).cells[-1]
    assert other.name != cell.name


def test_a_changed_picture_makes_new_cells(tmp_path):
    folder = paint(tmp_path / "mira")
    before = Study.plan({"character": str(folder)}, tmp_path / "study")
    (folder / "00.txt").write_text("another caption", encoding="utf-8")
    after = Study.plan({"character": str(folder)}, tmp_path / "study")
    assert not {c.folder for c in before.cells} & {c.folder for c in after.cells}


def test_a_cell_is_read_back_as_it_was_written(character, tmp_path):
    values = {"character": str(character), "technique": "textual_inversion+lora", "keep": "best"}
    study = Study.plan({**values, "lora": {"rank": [2, 4]}}, tmp_path)
    study.begin()
    for cell in study.cells:
        assert Cell.read(cell.folder) == cell


def test_a_study_file_gives_the_study_it_was_written_from(character, tmp_path):
    values = {"character": [str(character)], "seed": [0, 1], "lora": {"rank": [2, 4]}}
    study = Study.plan(values, tmp_path)
    study.begin()
    again = Study.read(tmp_path / "study.toml")
    assert [c.folder for c in again.cells] == [c.folder for c in study.cells]


def test_only_what_has_no_result_is_pending(character, tmp_path):
    study = finished(tmp_path, {"character": str(character), "seed": [0, 1]}, {"lora": FOUND})
    assert {cell.spec.row for cell in study.pending()} == {"untouched", "real"}
    study.cells[0].fail("it broke")
    assert {cell.spec.row for cell in study.pending()} == {"real"}
    assert {cell.spec.row for cell in study.pending(retry_failed=True)} == {"untouched", "real"}


def test_a_run_study_runs_what_is_pending_and_nothing_else(character, tmp_path):
    study = finished(tmp_path, {"character": str(character)}, {"lora": FOUND})
    ran: list[str] = []

    def runner(cells):
        for cell in cells:
            ran.append(cell.spec.row)
            cell.fail("not tried")
            yield cell

    events = list(run_study(study, runner))
    assert ran == ["untouched", "real"]
    assert events[0] == StudyStarted(total=3, pending=2)
    assert isinstance(events[-1], StudyFinished)
    assert events[-1].failed == 2
    assert [event.error for event in events[1:-1]] == ["not tried"] * 2
    logged = (tmp_path / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in logged][-1] == "study_finished"
    assert not list(run_study(study, runner))[1:-1]


def test_a_study_is_run_by_one_process_at_a_time(character, tmp_path):
    study = Study.plan({"character": str(character), "references": False}, tmp_path)

    def runner(cells):
        with pytest.raises(StudyError, match="another process runs this study"):
            list(run_study(study, runner))
        for cell in cells:
            cell.fail("not tried")
            yield cell

    assert list(run_study(study, runner))[-1].failed == 1
    assert list(run_study(study, runner))  # it is free again


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        ('{"format_version": 0, "status": "done"}', "has format 0, this version makes 2"),
        ("not json", "is damaged"),
        ("[]", "is damaged"),
        ('{"format_version": 2, "status": "done"}', "is damaged"),
    ],
)
def test_a_result_that_cannot_be_used_is_made_anew(stored, reason, character, tmp_path):
    study = finished(tmp_path, {"character": str(character)}, {"lora": FOUND})
    cell = study.cells[-1]
    cell.result_file.write_text(stored, encoding="utf-8")
    assert cell.result() is None
    assert reason in cell.problem
    assert cell.state == "pending"
    assert cell in study.pending()


def test_a_character_that_cannot_be_opened_fails_its_cells_alone(character, tmp_path):
    gone = tmp_path / "gone"
    study = Study.plan({"character": [str(character), str(gone)]}, tmp_path / "study")
    study.begin()
    failed = {cell.name for cell in study.cells if cell.result()}
    assert failed == {cell.name for cell in study.cells if cell.spec.run.character == gone}
    assert "does not exist" in next(c.result().error for c in study.cells if c.result())


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"lora": {"rnak": [4, 8]}}, "rank"),
        ({"sede": 1}, "seed"),
        ({"technique": ["lora", "loar"]}, "lora"),
        ({"budget": "hours=1"}, "budget"),
        ({"lora": {"rank": [4, "many"]}}, "rank"),
    ],
)
def test_a_wrong_key_or_value_is_refused_in_words(values, word, character, tmp_path):
    with pytest.raises(UsageError, match=word):
        Study.plan({"character": str(character), **values}, tmp_path)


def test_a_study_without_a_character_is_refused(tmp_path):
    with pytest.raises(UsageError, match="'character' is missing"):
        Study.plan({"technique": "lora"}, tmp_path)


def test_an_empty_list_is_refused(character, tmp_path):
    with pytest.raises(StudyError, match="empty"):
        Study.plan({"character": str(character), "seed": []}, tmp_path)


def test_two_characters_of_one_name_are_refused(character, tmp_path):
    twin = paint(tmp_path / "other")
    with pytest.raises(StudyError, match="two characters are called 'mira'"):
        Study.plan({"character": [str(character), str(twin)]}, tmp_path)
