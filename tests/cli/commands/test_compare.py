"""The commands that compare: compare, study run, study status, report."""

from __future__ import annotations

import json

import pytest
import tomli_w

from personae.cli.app import run
from personae.study.result import CellFailure
from personae.study.study import Study
from study_world import build, finished, grid


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return build(tmp_path_factory.mktemp("world"))


@pytest.fixture
def study(character, tmp_path):
    findings = {"lora": {"likeness": 0.7}, "untouched": {}, "real": {}}
    values = {"character": str(character), "technique": ["lora", "dreambooth"]}
    return finished(tmp_path / "study", values, findings)


def events(capsys, kind: str) -> list[dict]:
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return [line for line in lines if line["event"] == kind]


def test_compare_trains_measures_and_writes_the_report(world, character, tmp_path, capsys):
    out = tmp_path / "out"
    options = {
        "--base": world / "base",
        "--techniques": "textual_inversion",
        "--budget": "steps=3",
        "--suite": world / "few.toml",
        "--identity": f"toon_identity:{world / 'identity'}",
        "--image-text": f"toon_clip:{world / 'image_text'}",
        "--pictures": 1,
        "--keep": "last",
        "--device": "cpu",
        "--precision": "fp32",
        "--jobs": 2,
        "--limit": "memory=64GiB",
        "--out": out,
    }
    words = [str(word) for pair in options.items() for word in pair]
    assert run(["compare", str(character), *words, "--json"]) == 0
    told = capsys.readouterr().out.splitlines()
    report = json.loads(told[-1])
    assert report["event"] == "report"
    assert report["choice"] in (None, "textual_inversion")  # three steps may decide nothing
    assert "Textual Inversion" in report["headline"]
    assert not [line for line in map(json.loads, told) if line.get("error")]
    for name in ("report.html", "result.json", "table.csv", "summary.png", "study.toml"):
        assert (out / name).stat().st_size > 0
    assert run(["compare", str(character), *words, "--json"]) == 0
    assert events(capsys, "study_started")[0]["pending"] == 0


def test_a_study_file_that_asks_for_the_impossible_keeps_the_rest(
    world, character, tmp_path, capsys
):
    values = grid(world, character, lora={"rank": [2, 4096]}, references=False)
    file = tmp_path / "ranks.toml"
    file.write_text(tomli_w.dumps(values), encoding="utf-8")
    out = tmp_path / "study"
    assert run(["study", "run", str(file), "--out", str(out), "--json"]) == 1
    report = events(capsys, "report")[0]
    assert report["choice"] == "lora lora.rank=2"
    results = [cell.result() for cell in Study.read(file, out).cells]
    assert [isinstance(result, CellFailure) for result in results] == [False, True]
    assert "lora.rank is 4096" in results[1].error


def test_status_lists_what_is_done_failed_and_pending(study, capsys):
    next(c for c in study.cells if c.spec.row == "dreambooth").fail("out of memory")
    study.cells[0].result_file.unlink()
    assert run(["study", "status", str(study.folder), "--json"]) == 0
    states = {line["cell"]: line["state"] for line in events(capsys, "cell")}
    assert sorted(states.values()) == ["done", "done", "failed", "pending"]
    assert run(["study", "status", str(study.folder)]) == 0
    assert "failed: out of memory" in " ".join(capsys.readouterr().out.split())


def test_a_study_with_a_failed_cell_ends_with_1_and_says_which_and_how_to_run_it_again(
    study, capsys
):
    broken = next(c for c in study.cells if c.spec.row == "dreambooth")
    broken.fail("out of memory")
    assert run(["study", "run", str(study.folder / "study.toml")]) == 1
    told = " ".join(capsys.readouterr().out.split())
    assert f"1 cell failed: {broken.name}." in told
    assert "--retry-failed runs it again" in told
    assert "Report:" in told


def test_report_is_written_anew_with_other_limits(study, tmp_path, capsys):
    out = tmp_path / "elsewhere"
    words = ["report", str(study.folder), "--limit", "size=1kB", "--out", str(out)]
    assert run([*words, "--json"]) == 0
    assert events(capsys, "report")[0]["choice"] is None
    assert "no technique is within size=1kB" in (out / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["report", "nowhere"], "holds no study"),
        (["study", "run", "nowhere.toml"], "cannot be read"),
        (["compare", "nowhere"], "no character can be opened"),
    ],
)
def test_what_is_not_there_is_told_in_one_line(words, complaint, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(words) in (1, 2)
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1


def test_a_wrong_limit_is_refused_before_anything_runs(character, capsys, tmp_path):
    out = tmp_path / "out"
    assert run(["compare", str(character), "--limit", "colour=red", "--out", str(out)]) == 2
    assert "limit is 'colour=red'" in capsys.readouterr().err
    assert not out.exists()
