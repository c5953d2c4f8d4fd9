"""A resumed run trains on what it began with, or says what has changed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from personae.artifacts.artifact import Artifact
from personae.characters.character import Character
from personae.core.cache import default_folder
from personae.errors import TrainingError
from personae.generation.picture import Picture
from personae.models.family import Family
from personae.training.events import Finished, Step
from personae.training.run_folder import RunFolder
from personae.training.train import train
from tiny_world import only, paint, run, run_config

CLASS_PICTURES = {"prior": "images", "prior_images": 2}


def invert(path: Path) -> None:
    ImageOps.invert(Image.open(path).convert("RGB")).save(path)


def stopped(folder: Path, out: Path, base: Family, **values: object) -> Character:
    """Stop a run after its first step and return its character."""
    asked = iter((False, True))
    run(run_config(folder, **values), out, base, should_stop=lambda: next(asked))
    return Character.open(folder)


def refusal(out: Path, base: Family) -> str:
    before = {path: path.read_bytes() for path in (out / "checkpoints").iterdir()}
    with pytest.raises(TrainingError) as error:
        run(RunFolder(out).config(), out, base, resume=True)
    assert "\n" not in str(error.value)
    assert "start a new run" in str(error.value)
    assert not list(out.glob("*.safetensors"))
    assert {path: path.read_bytes() for path in (out / "checkpoints").iterdir()} == before
    return str(error.value)


def test_pictures_that_were_altered_or_deleted_are_named(sd1: Family, tmp_path: Path) -> None:
    character = stopped(paint(tmp_path / "mira"), tmp_path / "run", sd1)
    first, second, third, *_ = (each.path for each in character.references)
    invert(first)
    second.unlink()
    third.with_suffix(".txt").write_text("{name} at home", encoding="utf-8")
    message = refusal(tmp_path / "run", sd1)
    assert f"{second.name} is gone" in message
    assert f"{first.name} was altered" in message
    assert f"{third.name} has another caption" in message


def test_what_was_put_back_is_taken_up_again(sd1: Family, tmp_path: Path) -> None:
    character = stopped(paint(tmp_path / "mira"), tmp_path / "run", sd1)
    path = character.references[0].path
    before = path.read_bytes()
    invert(path)
    refusal(tmp_path / "run", sd1)
    path.write_bytes(before)
    events = run(run_config(character.folder), tmp_path / "run", sd1, resume=True)
    assert isinstance(events[-1], Finished)


def other_mask(character: Character) -> None:
    path = character.references[0].path
    picture = Image.open(path)
    picture.putalpha(ImageOps.mirror(picture.getchannel("A")))
    picture.save(path)


def other_noun(character: Character) -> None:
    file = character.folder / "character.toml"
    file.write_text(file.read_text().replace('"cat"', '"man"'), encoding="utf-8")


def new_picture(character: Character) -> None:
    Image.new("RGB", (64, 64), "teal").save(character.folder / "99.png")


def class_picture(_: Character) -> None:
    path = next(default_folder().glob("class_pictures/**/0001.png"))
    picture = Picture.open(path)
    Picture(ImageOps.invert(picture.image), picture.recipe).save(path)


def held_out(character: Character) -> None:
    file = character.folder / "character.toml"
    names = [character.references[0].path.name]
    file.write_text(f"{file.read_text()}held_out = {names}\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (other_mask, r"\d\d\.png was altered"),
        (other_noun, r"\d\d\.png has another caption; \d+ more; put them back"),
        (new_picture, r"99\.png is new"),
        (class_picture, r"class picture 0001\.png was altered"),
        (held_out, r"\d\d\.png is held out now, and was trained on"),
    ],
)
def test_everything_that_is_trained_on_counts(
    change: Callable[[Character], None], told: str, sd1: Family, tmp_path: Path
) -> None:
    folder = paint(tmp_path / "mira", masks=True)
    change(stopped(folder, tmp_path / "run", sd1, schedule=CLASS_PICTURES))
    assert re.search(told, refusal(tmp_path / "run", sd1))


def test_a_mask_beside_the_picture_counts(sd1: Family, tmp_path: Path) -> None:
    folder = paint(tmp_path / "mira")
    (folder / "masks").mkdir()
    for path in folder.glob("*.png"):
        Image.new("L", (64, 64), 255).save(folder / "masks" / path.name)
    character = stopped(folder, tmp_path / "run", sd1)
    half = Image.new("L", (64, 64), 0)
    half.paste(255, (0, 0, 32, 64))
    mask = character.references[0].mask
    assert mask is not None
    half.save(mask)
    assert f"{mask.name} has another mask" in refusal(tmp_path / "run", sd1)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("batch_size = 2", "batch_size = 1", "schedule.batch_size is 1, but .* begun with 2"),
        ("learning_rate = 0.001", "learning_rate = 0.01", "learning_rate is 0.01, .* with 0.001"),
        ('technique = "lora"', 'technique = "hypernetwork"', "technique is 'hypernetwork'"),
        ("rank = 4", "rank = 2", r"config\.toml: lora.rank is 2, but .* 4; set it back"),
        ("seed = 0", "seed = 1", "seed is 1, but the run was begun with 0"),
    ],
)
def test_settings_edited_by_hand_are_refused(
    before: str, after: str, told: str, sd1: Family, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    stopped(paint(tmp_path / "mira"), out, sd1, settings={"lora": {"rank": 4}})
    text = (out / "config.toml").read_text()
    assert before in text
    (out / "config.toml").write_text(text.replace(before, after))
    assert re.search(told, refusal(out, sd1))


def test_a_folder_may_move_and_previews_may_be_set_otherwise(sd1: Family, tmp_path: Path) -> None:
    folder, out = paint(tmp_path / "mira"), tmp_path / "run"
    stopped(folder, out, sd1)
    folder.rename(tmp_path / "elsewhere")
    text = (out / "config.toml").read_text().replace(str(folder), str(tmp_path / "elsewhere"))
    (out / "config.toml").write_text(text.replace("preview_every = 1000", "preview_every = 2"))
    assert isinstance(run(run_config(folder), out, sd1, resume=True)[-1], Finished)


def test_pictures_that_change_under_a_run_do_not_change_it(sd1: Family, tmp_path: Path) -> None:
    folder, out = paint(tmp_path / "mira"), tmp_path / "run"
    before = Character.open(folder)
    for event in train(run_config(folder), out, base=sd1):
        if isinstance(event, Step) and event.step == 1:
            before_fingerprint = before.fingerprint
            before.references[0].path.unlink()
    (path,) = out.glob("*.safetensors")
    assert Artifact.load(path).card.character.fingerprint == before_fingerprint


def test_a_state_that_does_not_say_what_it_was_trained_on_is_taken_up(
    sd1: Family, tmp_path: Path
) -> None:
    folder, out = paint(tmp_path / "mira"), tmp_path / "run"
    stopped(folder, out, sd1)
    state = RunFolder(out).load_checkpoint()
    del state["trained_on"]
    RunFolder(out).save_checkpoint(state.pop("step"), state)
    assert only(run(run_config(folder), out, sd1, resume=True), Step)[0].step == 2


def test_a_cache_that_cannot_be_written_changes_no_run(
    sd1: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = paint(tmp_path / "mira")
    config = run_config(folder, schedule=CLASS_PICTURES)
    run(config, tmp_path / "kept", sd1)
    (tmp_path / "file").touch()
    monkeypatch.setenv("PERSONAE_CACHE", str(tmp_path / "file"))
    asked = iter((False, True))
    run(config, tmp_path / "run", sd1, should_stop=lambda: next(asked))
    run(config, tmp_path / "run", sd1, resume=True)
    hashes = [
        Artifact.load(next((tmp_path / name).glob("*.safetensors"))).card.content_hash
        for name in ("kept", "run")
    ]
    assert hashes[0] == hashes[1]
