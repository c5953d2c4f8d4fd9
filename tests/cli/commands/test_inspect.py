"""`personae inspect`, `bases`, `init` and `check`: what they say, and how they end."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import load_file, save_file

from personae.artifacts.artifact import Artifact
from personae.artifacts.card import metadata_of
from personae.characters.character import Character
from personae.cli.app import run
from personae.generation.generate import draw
from personae.generation.sampler import Shot
from personae.generation.settings import Sampling
from personae.models.load import load_base
from personae.models.weights.sources import embedded_bases
from tiny_world import paint, run_config
from tiny_world import run as train


def test_an_artifact_shows_its_card_and_tensors(artifact: Path, told: Callable[..., Any]) -> None:
    (line,) = told("inspect", artifact)
    loaded = Artifact.load(artifact)
    assert line["card"]["character"]["name"] == "mira"
    assert line["bytes"] == artifact.stat().st_size
    assert {name: each["shape"] for name, each in line["tensors"].items()} == {
        name: list(tensor.shape) for name, tensor in loaded.tensors.items()
    }


def test_an_artifact_is_described_to_a_person(
    artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["inspect", str(artifact), "--tensors"]) == 0
    shown = capsys.readouterr().out
    assert "mira, a cat" in shown
    assert "rank 2" in shown
    assert next(iter(Artifact.load(artifact).tensors)) in shown


def test_the_layers_of_an_imported_lora_are_told_as_counts(
    artifact: Path,
    here: Path,
    base_folder: Path,
    capsys: pytest.CaptureFixture[str],
    told: Callable[..., Any],
) -> None:
    told("export", artifact, "--to", "kohya", "--out", here / "mira.safetensors")
    (imported,) = told("import", "mira.safetensors", "--base", base_folder)
    (line,) = told("inspect", imported["path"])
    layers = line["card"]["techniques"][0]["config"]["layers"]
    kinds = {kind: sum(f".{kind}" in name for name in layers) for kind in ("to_k", "to_out")}
    assert run(["inspect", imported["path"]]) == 0
    shown = capsys.readouterr().out
    assert f"layers {len(layers)} ({len(layers)} of denoiser: " in shown
    assert all(f"{count} {kind}" in shown for kind, count in kinds.items())
    assert layers[0] not in shown


def test_a_trained_artifact_tells_its_learning_rate(
    character: Path, base_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--base", base_folder, "--steps", 1, "--batch-size", 1, "--learning-rate", "0.003")
    words = ("train", character, *options, "--preview-prompts", "{character}", "--out", "r")
    assert run([*map(str, words)]) == 0
    capsys.readouterr()
    assert run(["inspect", "r/mira.lora.safetensors"]) == 0
    assert "at a learning rate of 0.003" in " ".join(capsys.readouterr().out.split())


def test_a_picture_shows_its_recipe_and_the_command_that_draws_it(
    base_folder: Path, capsys: pytest.CaptureFixture[str], told: Callable[..., Any]
) -> None:
    base = load_base(base_folder, device="cpu", precision="fp32")
    picture = draw(base, [Shot("the can", 4)], Sampling(steps=1))[0].save("a.png")
    (line,) = told("inspect", picture)
    assert line["recipe"]["batch"] == [{"prompt": "the can", "seed": 4}]
    assert run(["inspect", "a.png"]) == 0
    assert "personae generate --like a.png" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["jpg", "webp"])
def test_pictures_of_every_kind_show_their_recipe(
    kind: str, base_folder: Path, told: Callable[..., Any]
) -> None:
    options = ("--base", base_folder, "--steps", 1, "--format", kind)
    path = told("generate", "the can", *options)[-1]["path"]
    (line,) = told("inspect", path)
    assert line["recipe"]["batch"] == [{"prompt": "the can", "seed": 0}]


def test_a_picture_of_another_tool_shows_its_settings(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = PngInfo()
    said.add_text("parameters", "the {can}\nSteps: 2, Sampler: Euler, CFG scale: 3, Seed: 77")
    Image.new("RGB", (8, 8)).save(here / "theirs.png", pnginfo=said)
    assert run(["inspect", "theirs.png"]) == 0
    shown = capsys.readouterr().out
    assert "the {can}" in shown
    assert "77" in shown
    assert "personae generate --like theirs.png" in shown


def test_a_persona_file_shows_what_is_packed(
    artifact: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["pack", "mira.persona", "--cast", f"mira={artifact}"]) == 0
    capsys.readouterr()
    assert run(["inspect", "mira.persona"]) == 0
    shown = capsys.readouterr().out
    assert "artifacts/mira.lora.safetensors" in shown
    assert "personae unpack mira.persona" in shown


def test_a_run_shows_how_far_it_is(
    character: Path, base_folder: Path, here: Path, told: Callable[..., Any]
) -> None:
    base = load_base(base_folder, device="cpu", precision="fp32")
    train(run_config(character, base=str(base_folder)), here / "r", base)
    (line,) = told("inspect", "r")
    assert (line["finished"], line["step"], line["steps"]) == (True, 4, 4)
    (here / "r" / "result.json").unlink()
    with (here / "r" / "events.jsonl").open("a") as file:
        file.write('{"event": "st')  # as a crash leaves it
    (line,) = told("inspect", "r")
    assert not line["finished"]


def test_a_tampered_artifact_is_refused(
    artifact: Path, here: Path, refused: Callable[..., str]
) -> None:
    tensors = load_file(artifact)
    name = next(iter(tensors))
    tensors[name] = tensors[name] + 1
    card = Artifact.load(artifact).card
    save_file(tensors, here / "bad.safetensors", metadata_of(card))
    assert "its tensors do not match its card" in refused("inspect", "bad.safetensors", code=1)


def test_a_card_that_no_hash_covers_is_told(
    artifact: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = Artifact.load(artifact).card.model_copy(update={"format_version": 1})
    save_file(load_file(artifact), here / "old.safetensors", {"personae": card.model_dump_json()})
    assert run(["inspect", "old.safetensors"]) == 0
    assert "no hash covers it" in " ".join(capsys.readouterr().out.split())
    assert run(["inspect", str(artifact)]) == 0
    assert "covered by a hash" in " ".join(capsys.readouterr().out.split())


def test_foreign_and_missing_files_are_refused(here: Path, refused: Callable[..., str]) -> None:
    save_file({"x": torch.zeros(1)}, here / "x.safetensors")
    assert "personae import" in refused("inspect", "x.safetensors", code=1)
    assert "does not exist" in refused("inspect", "none.safetensors")
    assert "holds no run" in refused("inspect", here)


def test_every_embedded_base_is_listed(told: Callable[..., Any]) -> None:
    assert [line["name"] for line in told("bases")] == list(embedded_bases())


def test_init_writes_a_file_that_opens_as_the_character(
    here: Path, told: Callable[..., Any], refused: Callable[..., str]
) -> None:
    folder = paint(here / "pictures")
    (folder / "character.toml").unlink()
    told("init", folder, "--name", "juno", "--class-noun", "robot")
    opened = Character.open(folder)
    assert (opened.name, opened.class_noun) == ("juno", "robot")
    assert "--force" in refused("init", folder, code=1)
    told("init", folder, "--name", "mara", "--force")
    assert Character.open(folder).name == "mara"


def test_check_ends_with_1_exactly_when_there_is_an_error(
    here: Path, told: Callable[..., Any]
) -> None:
    folder = paint(here / "pictures")
    (line,) = told("check", folder)
    assert (line["name"], len(line["pictures"])) == ("mira", 6)
    (folder / "00.png").write_bytes(b"no picture")
    (line,) = told("check", folder, code=1)
    assert any(finding["level"] == "error" for finding in line["findings"])


def test_check_counts_what_is_found_and_used_and_groups_what_many_pictures_share(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = paint(here / "pictures")
    (folder / "lost.txt").write_text("a caption of nothing")
    assert run(["check", str(folder), "--resolution", "512"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "used: 6 pictures, 6 of 7 captions" in shown
    assert "6 files, as 00.png is " in shown
    assert "01.png is " not in shown
    assert "--json names every file of a group" in shown


def test_check_tells_a_link_to_nothing(here: Path, told: Callable[..., Any]) -> None:
    folder = paint(here / "pictures")
    (folder / "06.png").symlink_to(folder / "gone.png")
    (line,) = told("check", folder)
    told_of = [each["message"] for each in line["findings"] if each["file"].endswith("06.png")]
    assert told_of == ["links to nothing, so it is not read; mend the link, or delete it"]


def test_the_next_command_can_be_typed_as_it_is_shown(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = paint(here / "pictures of mira")
    assert run(["check", str(folder)]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert shlex.split(last) == ["personae", "train", "pictures of mira"]


def test_check_names_the_next_command_only_when_all_is_well(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = paint(here / "pictures")
    assert run(["check", str(folder)]) == 0
    assert "personae train pictures" in capsys.readouterr().out
    (folder / "00.png").write_bytes(b"no picture")
    assert run(["check", str(folder)]) == 1
    shown = capsys.readouterr().out
    assert "not ready to train" in shown
    assert "personae train" not in shown
