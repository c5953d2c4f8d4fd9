"""Keeping the best checkpoint: scored, chosen, put back, and the same after a resume."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from personae.artifacts.artifact import Artifact
from personae.core.cache import default_folder
from personae.errors import TrainingError, UsageError
from personae.models.load import load_base
from personae.models.toys import tiny_stable_diffusion
from personae.training.events import CheckpointSaved, Finished, Kept, Scored, StoppedEarly
from personae.training.run_folder import RunFolder
from personae.training.selection import CheckpointSelector, read_scores
from personae.training.selection_rules import ScoredCheckpoint
from personae.training.train import train
from study_world import build, judging
from tiny_world import only, paint, run, run_config


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return build(tmp_path_factory.mktemp("world"))


def config(world, character, **values):
    defaults = {"keep": "best", "stop_early": False, "checkpoint_every": 2}
    return run_config(character, judging=judging(world), **{**defaults, **values})


@pytest.mark.parametrize("technique", ["lora", "dreambooth", "textual_inversion"])
def test_the_artifact_is_the_checkpoint_that_was_kept(technique, world, character, sd1, tmp_path):
    events = run(config(world, character, technique=technique), tmp_path / "run", sd1)
    kept, finished = only(events, Kept)[0], only(events, Finished)[0]
    scored = {event.step: event.likeness for event in only(events, Scored)}
    assert set(scored) == {2, 4}
    assert kept.step == kept.best == max(scored, key=scored.get)
    mine = Artifact.load(finished.path)
    theirs = Artifact.load(tmp_path / "run" / "candidates" / f"step-{kept.step:06d}.safetensors")
    assert mine.card.content_hash == theirs.card.content_hash
    assert mine.card.training.steps == kept.step


def test_scoring_does_not_change_what_is_learnt(world, character, sd1, tmp_path):
    plain = run(config(world, character, keep="last"), tmp_path / "plain", sd1)
    scored = run(config(world, character, keep="best"), tmp_path / "scored", sd1)
    last = Artifact.load(only(plain, Finished)[0].path)
    folder = tmp_path / "scored" / "candidates"
    final = folder / "step-000004.safetensors"
    assert only(scored, Kept)[0].last == 4
    assert final.is_file()  # the last one is always kept beside the best
    assert Artifact.load(final).card.content_hash == last.card.content_hash


def test_networks_put_aside_change_no_score(world, character, tmp_path):
    tiny_stable_diffusion(1).save_pretrained(tmp_path / "base")
    base, told = load_base(tmp_path / "base", device="cpu", precision="fp32"), []
    for unload in (True, False):
        shutil.rmtree(default_folder() / "untouched", ignore_errors=True)  # drawn once on a machine
        settings = config(world, character, base=base.source, unload=unload)
        told.append(only(run(settings, tmp_path / f"run-{unload}", base), Scored))
    assert told[0] == told[1]


def test_the_average_is_scored_and_training_goes_on_from_the_parameters(
    world, character, sd1, tmp_path
):
    average = {"schedule": {"ema": 0.5}}
    plain = run(config(world, character, keep="last", **average), tmp_path / "plain", sd1)
    run(config(world, character, **average), tmp_path / "scored", sd1)
    last = Artifact.load(only(plain, Finished)[0].path)
    scored = Artifact.load(tmp_path / "scored" / "candidates" / "step-000004.safetensors")
    assert scored.card.content_hash == last.card.content_hash


def test_a_resumed_run_keeps_the_same_and_scores_nothing_twice(world, character, sd1, tmp_path):
    settings = config(world, character)
    whole = run(settings, tmp_path / "whole", sd1)
    halves = train(settings, tmp_path / "halves", base=sd1)
    for event in halves:
        if isinstance(event, CheckpointSaved):  # saved, but not scored yet
            halves.close()
            break
    rest = list(train(settings, tmp_path / "halves", resume=True, base=sd1))
    assert [event.step for event in only(rest, Scored)] == [2, 4]
    again = only(rest, Finished)[0].path
    first = only(whole, Finished)[0].path
    assert Artifact.load(again).card.content_hash == Artifact.load(first).card.content_hash


def test_a_run_without_gain_stops_early_and_says_why(world, character, sd1, tmp_path):
    still = {"steps": 12, "learning_rate": 1e-9}
    settings = config(world, character, stop_early=True, schedule=still, technique="dreambooth")
    run(settings, tmp_path / "run", sd1)
    log = (tmp_path / "run" / "events.jsonl").read_text().splitlines()
    stopped = [line for line in log if '"stopped_early"' in line]
    assert len(stopped) == 1
    assert "likeness has not gained" in stopped[0]
    assert '"step": 6' in stopped[0]  # one to compare with, and two in a row without a gain


def test_a_character_without_held_out_pictures_is_refused(world, sd1, tmp_path):
    few = paint(tmp_path / "few", count=4)
    with pytest.raises(UsageError, match="no picture of 'mira' is held out"):
        run(config(world, few), tmp_path / "run", sd1)


def test_scores_are_read_back_as_they_were_stored(world, character, sd1, tmp_path):
    events = run(config(world, character), tmp_path / "run", sd1)
    keeper = CheckpointSelector.__new__(CheckpointSelector)
    keeper.folder = RunFolder(tmp_path / "run").path / "candidates"
    stored = keeper._stored()
    assert [one.step for one in stored] == [2, 4]
    assert all(isinstance(one, ScoredCheckpoint) for one in stored)
    told = only(events, Scored)[0]
    assert float(np.nanmean(stored[0].likeness)) == pytest.approx(told.likeness)
    assert stored[0].drift == told.drift


def test_events_say_when_a_run_stopped_early(world, character, sd1, tmp_path):
    events = run(config(world, character, stop_early=True), tmp_path / "run", sd1)
    assert only(events, StoppedEarly) == []  # two checkpoints are too few to judge by
    assert torch.isfinite(torch.tensor(only(events, Scored)[0].agreement))


@pytest.mark.parametrize("text", ["", "{}x", "[" * 50_000, "[1]", '[{"step": 1}]', "9" * 5000])
def test_damaged_scores_are_refused_in_one_line(text, tmp_path):
    (tmp_path / "scores.json").write_text(text)
    with pytest.raises(TrainingError, match=r"scores\.json: is damaged .*; delete it"):
        read_scores(tmp_path / "scores.json")
