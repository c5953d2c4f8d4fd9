"""`personae train`: options from the settings classes, files below options, stopping, resuming."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from personae.artifacts.artifact import Artifact
from personae.artifacts.card import read_card
from personae.cli.app import run
from personae.cli.commands.train import run_groups, stopping_on_signal
from personae.cli.terminal import Terminal
from personae.core.config import read_toml
from personae.core.lock import alone_in
from personae.training.run_folder import free_folder
from personae.training.settings import RunConfig

SHORT = ("--steps", "2", "--batch-size", "2", "--preview-prompts", "{character}")


def test_every_simple_field_is_an_option_and_says_what_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["train", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    tables = {"character", "settings", "sampling"} | {group.table[-1] for group in run_groups()[1:]}
    for group in run_groups():
        for name, field in group.schema.model_fields.items():
            if name not in tables:
                assert f"--{group.prefix}{name}".replace("_", "-") in text
                assert " ".join(field.description.split())[:40] in text


def test_a_run_ends_with_an_artifact_and_the_next_command(
    character: Path, base_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--base", base_folder, "--lora-rank", 2, "--lora-targets", "cross_attention")
    assert run(["train", *map(str, (character, *options, *SHORT))]) == 0
    path = here / "runs" / "mira-lora" / "mira.lora.safetensors"
    settings = Artifact.load(path).card.techniques[0].config
    assert (settings["rank"], settings["targets"]) == (2, "cross_attention")
    shown = capsys.readouterr().out
    file = "runs/mira-lora/mira.lora.safetensors"
    assert f'personae generate --cast mira={file} "{{mira}} at the beach" -n 4' in shown


def test_json_tells_every_event_and_nothing_else(
    character: Path, base_folder: Path, here: Path, told: Callable[..., Any]
) -> None:
    events = told("train", character, "--base", base_folder, "--out", "r", *SHORT)
    stored = (here / "r" / "events.jsonl").read_text().splitlines()
    assert events == [json.loads(line) for line in stored]
    assert events[-1]["event"] == "finished"
    assert sum(event["event"] == "step" for event in events) == 2


def test_options_come_before_the_file(
    character: Path, base_folder: Path, here: Path, told: Callable[..., Any]
) -> None:
    (here / "run.toml").write_text(
        f'base = "{base_folder}"\nseed = 5\npreview_prompts = ["{{character}}"]\n'
        "[schedule]\nsteps = 9\nbatch_size = 1\n[lora]\nrank = 3\nalpha = 1.5\n"
    )
    changes = ("--steps", "1", "--lora-rank", "2")
    told("train", character, "--config", "run.toml", "--out", "r", *changes)
    kept = RunConfig.read(read_toml(here / "r" / "config.toml"))
    assert (kept.seed, kept.schedule.steps, kept.schedule.batch_size) == (5, 1, 1)
    assert kept.settings["lora"] == {"rank": 2, "alpha": 1.5}


def test_lists_are_given_with_commas(
    character: Path, base_folder: Path, told: Callable[..., Any]
) -> None:
    options = ("--technique", "hypernetwork", "--hypernetwork-layer-structure", "1,0.25,1")
    done = told("train", character, "--base", base_folder, *options, *SHORT)[-1]
    config = read_card(done["path"]).techniques[0].config
    assert config["layer_structure"] == [1, 0.25, 1]


def test_ctrl_c_saves_and_resume_ends_like_a_run_never_stopped(
    character: Path, base_folder: Path, here: Path, told: Callable[..., Any]
) -> None:
    options = [str(character), "--base", str(base_folder), "--preview-prompts", "{character}"]
    options += ["--steps", "12", "--batch-size", "1", "--validate-every", "6"]
    options += ["--preview-every", "1000", "--lora-targets", "cross_attention"]
    command = [sys.executable, "-m", "personae", "train", *options, "--out", "cut", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if json.loads(line)["event"] == "step":
                process.send_signal(signal.SIGINT)
                break
        last = json.loads(process.stdout.read().splitlines()[-1])
    assert (process.returncode, last["event"]) == (130, "stopped")
    assert last["step"] < 12
    told("train", "--resume", "cut")
    told("train", *options, "--out", "whole")
    cut, whole = (Artifact.load(here / run / "mira.lora.safetensors") for run in ("cut", "whole"))
    assert cut.card.content_hash == whole.card.content_hash


def test_a_closed_terminal_saves_too() -> None:
    before = signal.getsignal(signal.SIGHUP)
    with stopping_on_signal(Terminal()) as should_stop:
        signal.raise_signal(signal.SIGHUP)
        assert should_stop()
    assert signal.getsignal(signal.SIGHUP) is before
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with stopping_on_signal(Terminal()) as should_stop:
            signal.raise_signal(signal.SIGHUP)
            assert not should_stop()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_folder_in_which_a_run_goes_on_is_left_alone(
    character: Path, base_folder: Path, here: Path, refused: Callable[..., str]
) -> None:
    with alone_in(here / "busy", "training"):
        line = refused("train", character, "--base", base_folder, "--out", "busy")
        assert f"another process runs this training now (process {os.getpid()})" in line
        assert (here / "busy").is_dir()


def test_a_second_ctrl_c_ends_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT)
    with stopping_on_signal(Terminal()) as should_stop:
        assert not should_stop()
        signal.raise_signal(signal.SIGINT)
        assert should_stop()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    assert "Ctrl-C again" in capsys.readouterr().out


def test_settings_of_another_technique_are_refused(refused: Callable[..., str]) -> None:
    line = refused("train", "x", "--technique", "dreambooth", "--lora-rank", "4")
    assert "--lora-rank has no effect with technique 'dreambooth'" in line


def test_a_mistyped_technique_is_refused_with_the_nearest(refused: Callable[..., str]) -> None:
    assert "Did you mean 'lora'?" in refused("train", "x", "--technique", "lra")


def test_a_value_out_of_range_is_refused(refused: Callable[..., str]) -> None:
    assert "rank" in refused("train", "x", "--lora-rank", "0")


def test_a_mistyped_key_in_the_file_is_refused_with_the_nearest(
    here: Path, refused: Callable[..., str]
) -> None:
    (here / "run.toml").write_text('character = "x"\n[schedule]\nstep = 4\n')
    assert "Did you mean 'steps'?" in refused("train", "--config", "run.toml")


def test_a_run_needs_a_character(refused: Callable[..., str]) -> None:
    assert "no character" in refused("train")


def test_a_resumed_run_keeps_its_settings(refused: Callable[..., str]) -> None:
    assert "'schedule' is given too" in refused("train", "--resume", "r", "--steps", "4")
    assert "'FOLDER' is given too" in refused("train", "pictures", "--resume", "r")


def test_a_run_refused_before_its_start_leaves_no_folder(
    here: Path, refused: Callable[..., str]
) -> None:
    refused("train", "nowhere", "--out", "r", code=1)
    assert not (here / "r").exists()


def test_a_folder_that_holds_a_run_is_not_used_again(here: Path) -> None:
    config = RunConfig(character=Path("pictures/mira"))
    assert free_folder(config) == Path("runs/mira-lora")
    (here / "runs" / "mira-lora").mkdir(parents=True)
    assert free_folder(config) == Path("runs/mira-lora-2")
