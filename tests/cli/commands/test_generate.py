"""`personae generate` and `personae sheet`: pictures, recipes, sheets, and what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from personae.cli.app import run
from personae.generation.picture import Picture

QUICK = ("--steps", "2", "--device", "cpu", "--precision", "fp32")


def test_each_prompt_is_drawn_with_each_seed(
    artifact: Path, here: Path, told: Callable[..., Any]
) -> None:
    prompts = ("{mira} on the can", "the cat")
    told_ = told(
        "generate", *prompts, "--cast", f"mira={artifact}", "--seed", 3, "-n", 2, "--out", "p",
        *QUICK,
    )  # fmt: skip
    drawn = [line for line in told_ if line["event"] == "picture"]
    wanted = [(prompt, seed) for prompt in prompts for seed in (3, 4)]
    assert [(line["prompt"], line["seed"]) for line in drawn] == wanted
    for line in drawn:
        assert Picture.open(line["path"]).recipe.prompt == line["prompt"]


def test_nothing_is_overwritten(artifact: Path, here: Path, told: Callable[..., Any]) -> None:
    for _ in range(2):
        told("generate", "{mira}", "--cast", f"mira={artifact}", *QUICK)
    assert sorted(path.name for path in (here / "pictures").iterdir()) == [
        "mira-0-2.png",
        "mira-0.png",
    ]


def test_like_draws_the_same_bytes(artifact: Path, here: Path, told: Callable[..., Any]) -> None:
    cast = ("--cast", f"mira={artifact}")
    fading = ("--strength", "mira=0:1,0.5:0.2")
    first = told("generate", "{mira} and the man", "{mira}", *cast, *fading, *QUICK)
    paths = [Path(line["path"]) for line in first if line["event"] == "picture"]
    again = told("generate", "--like", paths[1], *cast, "--out", "again")
    assert Path(again[-1]["path"]).read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize("place", [".", "pictures", "runs/mira-lora"])
def test_like_finds_the_artifact_at_hand_by_its_hash(
    place: str, artifact: Path, here: Path, told: Callable[..., Any], refused: Callable[..., str]
) -> None:
    cast = ("--cast", f"mira={artifact}", "--strength", "mira=0.5")
    drawn = Path(told("generate", "{mira}", *cast, *QUICK)[-1]["path"])
    (here / place).mkdir(parents=True, exist_ok=True)
    copied = here / place / artifact.name
    copied.write_bytes(b"of the same name, and nothing else")
    assert "give that file with --cast mira=FILE" in refused("generate", "--like", drawn)
    shutil.copy(artifact, copied)
    again = told("generate", "--like", drawn, "--out", "again")
    assert Path(again[-1]["path"]).read_bytes() == drawn.read_bytes()


@pytest.mark.parametrize("kind", ["jpg", "webp"])
def test_a_picture_in_a_lossy_format_is_drawn_again_as_it_was(
    kind: str, artifact: Path, told: Callable[..., Any]
) -> None:
    cast = ("--cast", f"mira={artifact}")
    lossy = told("generate", "{mira}", *cast, "--format", kind, *QUICK)[-1]["path"]
    exact = told("generate", "{mira}", *cast, *QUICK)[-1]["path"]
    again = told("generate", "--like", lossy, *cast)[-1]["path"]
    assert Picture.open(again).image.tobytes() == Picture.open(exact).image.tobytes()


def test_a_picture_of_another_tool_is_drawn_with_its_settings(
    base_folder: Path, here: Path, told: Callable[..., Any]
) -> None:
    said = PngInfo()
    said.add_text("parameters", "the {can}\nSteps: 2, Sampler: Euler, CFG scale: 3, Seed: 77")
    Image.new("RGB", (8, 8)).save(here / "theirs.png", pnginfo=said)
    line = told("generate", "--like", "theirs.png", "--base", base_folder)[-1]
    sampling = Picture.open(line["path"]).recipe.sampling
    assert (line["prompt"], line["seed"]) == ("the {{can}}", 77)
    assert (sampling.sampler, sampling.steps, sampling.guidance_scale) == ("euler", 2, 3)


def test_a_seed_beyond_64_bits_is_refused(base_folder: Path, refused: Callable[..., str]) -> None:
    line = refused("generate", "the can", "--base", base_folder, "--seed", 2**64)
    assert f"seed is {2**64}; it must be between" in line


def test_a_picture_without_settings_is_refused(here: Path, refused: Callable[..., str]) -> None:
    Image.new("RGB", (8, 8)).save(here / "bare.png")
    assert "holds no settings" in refused("generate", "--like", "bare.png")


def test_strength_changes_the_picture(artifact: Path, told: Callable[..., Any]) -> None:
    images = []
    for strength in ("0", "1"):
        options = ("--cast", f"mira={artifact}", "--strength", f"mira={strength}", *QUICK)
        images.append(Picture.open(told("generate", "{mira}", *options)[-1]["path"]).image)
    assert images[0].tobytes() != images[1].tobytes()


def test_sampling_comes_from_the_file_and_over_it_from_options(
    artifact: Path, here: Path, told: Callable[..., Any]
) -> None:
    (here / "draw.toml").write_text('sampler = "ddim"\nsteps = 9\nwidth = 128\n')
    options = ("--cast", f"mira={artifact}", "--config", "draw.toml", *QUICK)
    picture = Picture.open(told("generate", "{mira}", *options)[-1]["path"])
    used = picture.recipe.sampling
    assert (used.sampler, used.steps, picture.image.size) == ("ddim", 2, (128, 64))


def test_a_contact_sheet_is_put_beside_the_pictures(
    artifact: Path, here: Path, told: Callable[..., Any]
) -> None:
    cast = ("--cast", f"mira={artifact}")
    last = told("generate", "{mira}", *cast, "-n", 2, "--sheet", *QUICK)[-1]
    assert (last["event"], last["path"]) == ("sheet", "pictures/sheet.png")
    with Image.open(last["path"]) as sheet:
        assert sheet.width > sheet.height > 200


def test_a_character_sheet_shows_every_shot_of_the_suite(
    artifact: Path, here: Path, told: Callable[..., Any]
) -> None:
    (here / "mine.toml").write_text(
        'name = "mine"\n[[shots]]\nid = "tree"\nkind = "scene"\nprompt = "a {character} in a tree"'
        '\n[[shots]]\nid = "ink"\nkind = "medium"\nmedium = "ink"\nprompt = "ink of a {character}"'
    )
    lines = told("sheet", "--cast", f"mira={artifact}", "--suite", "mine.toml", *QUICK)
    prompts = [line["prompt"] for line in lines if line["event"] == "picture"]
    assert prompts == ["a {mira} in a tree", "ink of a {mira}"]
    assert lines[-1]["path"] == "sheets/mira-sheet.png"


def test_a_person_is_told_where_the_pictures_are(
    artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["generate", "{mira}", "--cast", f"mira={artifact}", *QUICK]) == 0
    assert "1 picture in pictures" in capsys.readouterr().out


def test_an_unknown_name_in_a_prompt_is_refused(
    artifact: Path, refused: Callable[..., str]
) -> None:
    line = refused("generate", "{mara}", "--cast", f"mira={artifact}", *QUICK)
    assert "Did you mean 'mira'?" in line


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--cast", "mira.safetensors"], "expected name=value"),
        (["--cast", "a=x", "--cast", "a=y"], "names 'a' twice"),
        (["--like", "p.png", "another"], "'another' is given too"),
        (["--like", "p.png", "--steps", "4"], "'steps' is given too"),
        (["--like", "p.png"], "p.png: no such file"),
        (["x", "--steps", "0"], "steps"),
        (["x", "--config", "none.toml"], "none.toml: cannot be read"),
        ([], "no prompt"),
    ],
)
def test_wrong_usage_is_refused(
    options: list[str], reason: str, refused: Callable[..., str]
) -> None:
    assert reason in refused("generate", *options)


def test_a_missing_artifact_is_refused(refused: Callable[..., str]) -> None:
    assert "none.safetensors: no such file" in refused(
        "generate", "{a}", "--cast", "a=none.safetensors"
    )
    assert "none.safetensors: does not exist" in refused("inspect", "none.safetensors")


def test_a_sheet_needs_a_character_and_a_known_suite(
    artifact: Path, refused: Callable[..., str]
) -> None:
    assert "no character" in refused("sheet")
    line = refused("sheet", "--cast", f"mira={artifact}", "--suite", "ton", *QUICK)
    assert "Did you mean 'toon'?" in line


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_drawn(
    artifact: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "taken").write_text("a file")
    code = run(
        ["generate", "{mira}", "--cast", f"mira={artifact}", "--out", "taken", "--json", *QUICK]
    )
    printed = capsys.readouterr()
    assert code == 1
    assert "taken" in printed.err
    assert "cannot be written" in printed.err
    assert '"drawing"' not in printed.out
