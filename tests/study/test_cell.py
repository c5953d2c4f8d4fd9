"""Cells run for real on a tiny base: in this process, in their own, killed, and on a cluster."""

from __future__ import annotations

import pytest

from personae.errors import CharacterError
from personae.study.cell import Cell
from personae.study.comparison.comparison import Comparison
from personae.study.result import CellFailure, CellResult
from personae.study.study import Study
from personae.study.worker import main, run_cell
from study_world import build, grid
from tiny_world import paint


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return build(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cells-cache")


@pytest.fixture(autouse=True)
def _shared_untouched(shared_cache, monkeypatch):
    """Let the tests of this file share what the untouched base draws."""
    monkeypatch.setenv("PERSONAE_CACHE", str(shared_cache))


def cell_of(study: Study, row: str) -> Cell:
    study.begin()
    return next(cell for cell in study.cells if cell.spec.row == row)


@pytest.fixture(scope="module")
def ran(world, character, tmp_path_factory, shared_cache):
    """Return a cell of the usual grid that has been run, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PERSONAE_CACHE", str(shared_cache))
        patch.setenv("PERSONAE_ACCELERATION", "none")
        cell = cell_of(Study.plan(grid(world, character), tmp_path_factory.mktemp("ran")), "lora")
        run_cell(cell)
    return cell


def test_a_trained_cell_has_scores_costs_pictures_and_a_curve(world, character, tmp_path):
    study = Study.plan(grid(world, character, keep="best", stop_early=False), tmp_path)
    cell = cell_of(study, "lora")
    run_cell(cell)
    result = cell.result()
    assert isinstance(result, CellResult)
    assert set(result.costs) >= {
        "seconds", "peak_bytes", "parameters", "file_bytes",
        "load_seconds", "switch_seconds", "seconds_per_picture",
    }  # fmt: skip
    assert all(amount >= 0 for amount in result.costs.values())
    assert len(result.pictures) == 4 * 2
    assert len(result.class_pictures) == 2
    assert all((cell.pictures / each.file).is_file() for each in result.pictures)
    assert (cell.folder / result.artifact).is_file()
    assert len(result.curve.loss) == 4
    assert result.curve.scored
    assert result.scores.metrics["likeness"].mean is not None
    assert result.scores.metrics["drift"].mean is not None
    lora = Comparison.of(study).row("lora")
    for measure in ("likeness", "likeness_second", "agreement", "right_prompt"):
        assert lora.mean(measure) is not None, measure
    metrics = result.scores.metrics  # encoders of random weights may see others as more alike
    known = metrics["likeness"].ceiling > metrics["likeness"].floor
    assert (lora.mean("likeness_share") is not None) == known


def test_the_same_cell_gives_the_same_scores(world, character, tmp_path, ran):
    second = cell_of(Study.plan(grid(world, character), tmp_path), "lora")
    run_cell(second)
    assert ran.result().scores == second.result().scores
    assert ran.result().content_hash == second.result().content_hash


def test_the_untouched_base_and_the_real_pictures_are_measured(world, character, tmp_path):
    study = Study.plan(grid(world, character), tmp_path)
    for row in ("untouched", "real"):
        run_cell(cell_of(study, row))
    base, real = (cell_of(study, row).result().scores.metrics for row in ("untouched", "real"))
    assert base["drift"].mean == pytest.approx(0, abs=1e-6)
    assert base["likeness"].ceiling == pytest.approx(real["likeness"].mean)
    assert real["agreement"].mean is not None


def test_what_was_trained_is_not_trained_again(ran):
    log = ran.training / "events.jsonl"
    before, result = log.read_text(), ran.result()
    ran.result_file.unlink()
    run_cell(ran)
    assert log.read_text() == before
    assert ran.result().content_hash == result.content_hash


@pytest.mark.parametrize(
    ("budget", "steps"), [("steps=3", 3), ("presentations=5", 3), ("seconds=0.0001", 1)]
)
def test_the_budget_decides_how_long_is_trained(budget, steps, world, character, tmp_path):
    cell = cell_of(Study.plan(grid(world, character, budget=budget), tmp_path), "lora")
    run_cell(cell)
    assert cell.result().training.steps == steps


def test_a_character_too_small_to_hold_any_out_is_refused_in_words(world, tmp_path):
    few = paint(tmp_path / "few", count=4)
    cell = cell_of(Study.plan(grid(world, few), tmp_path / "study"), "lora")
    with pytest.raises(CharacterError, match="too few to hold any out"):
        run_cell(cell)


def test_missing_encoder_weights_become_the_cell_s_result(world, character, tmp_path, monkeypatch):
    values = grid(world, character)
    values["judging"] = {**values["judging"], "identity": f"toon_identity:{tmp_path / 'gone'}"}
    cell = cell_of(Study.plan(values, tmp_path), "real")
    assert main(str(cell.folder)) == 0
    assert isinstance(cell.result(), CellFailure)
    assert "toon_identity" in cell.result().error
    assert "\n" not in cell.result().error
