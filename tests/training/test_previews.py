"""Previews: as large as the training's pictures, and in no more memory than was forecast."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from personae.artifacts.artifact import Artifact
from personae.characters.character import Character
from personae.generation.cast import Cast, Member
from personae.generation.picture import Picture
from personae.models.family import Family
from personae.models.load import load_base
from personae.training.events import Finished, Preview
from personae.training.memory.counter import peak_allocated
from personae.training.memory.forecast import needed
from personae.training.memory.passes import drawing_bytes
from personae.training.previews import draw_previews
from personae.training.proof import finish
from personae.training.run_folder import RunFolder
from personae.training.trainer import artifact_of
from tiny_world import bare, only, run, run_config, shallow_pipeline, techniques, trainer_of

PROMPTS = ["{character}", "a can", "{character} on a can"]


@pytest.fixture
def base(tmp_path: Path) -> Family:
    shallow_pipeline().save_pretrained(tmp_path / "base")
    return load_base(tmp_path / "base", device="cpu", precision="fp32", acceleration="none")


def test_previews_are_as_large_as_the_pictures_of_the_training(
    character: Path, shallow: Family, tmp_path: Path
) -> None:
    side = 2 * shallow.resolution
    config = run_config(character, preview_prompts=["a cat"], schedule={"resolution": side})
    (preview,) = only(run(config, tmp_path / "run", shallow), Preview)
    assert Picture.open(preview.path).image.size == (side, side)


@pytest.mark.parametrize("technique", techniques())
@pytest.mark.parametrize("unload", [False, True])
def test_drawing_takes_what_the_forecast_says(
    technique: str, unload: bool, character: Path, base: Family
) -> None:
    config = run_config(
        character,
        technique=technique,
        base=base.source,
        acceleration="none",
        unload=unload,
        preview_prompts=PROMPTS,
    )
    trainer = trainer_of(config, base)
    try:
        forecast = drawing_bytes(config, trainer.schedule, base)
        member = Member(artifact_of(trainer), techniques=trainer.techniques)
        cast = Cast({"character": member})
        measured = peak_allocated(lambda: draw_previews(trainer, cast, steps=1))
        brought = base.unloaded.largest_part
    finally:
        trainer.eject()
        base.unloaded.reload()
    assert bare(base)
    # What a call brings back counts apart; latents, noise and the picture come on top.
    assert measured - brought <= 1.15 * forecast + 2**16


def test_a_forecast_of_little_training_is_that_of_the_previews(
    character: Path, base: Family
) -> None:
    """Eight rows of previews need more than the step of one picture that keeps no activations."""
    config = run_config(
        character,
        base=base.source,
        acceleration="none",
        schedule={"batch_size": 1, "gradient_checkpointing": "full"},
        preview_prompts=[*PROMPTS, "a cat"],
    )
    opened = Character.open(character)
    config = config.resolved(len(opened.references), base)
    many = needed(config, opened, base, 0).passes
    none = needed(config.model_copy(update={"preview_prompts": ["a"]}), opened, base, 0).passes
    assert many > none


def test_what_was_trained_is_let_go_before_the_file_is_read_again(
    character: Path, shallow: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise all that was learnt would lie in memory twice."""
    left: list[int] = []
    load = Artifact.load.__func__

    def looking(cls: type[Artifact], path: Path) -> Artifact:
        left.append(sum(p.numel() for p in trainer.parameters))
        return load(cls, path)

    config = run_config(character, technique="dreambooth", preview_prompts=["a cat"])
    folder = RunFolder(tmp_path / "run")
    folder.begin(config)
    trainer = trainer_of(config, shallow)
    trainer.step(0)
    assert sum(p.numel() for p in trainer.parameters) > 0 < len(trainer.optimizer.state)
    monkeypatch.setattr(Artifact, "load", classmethod(looking))
    (finished,) = only(list(finish(trainer, folder)), Finished)
    assert left == [0]
    assert not trainer.optimizer.state
    assert bare(shallow)
    assert all(
        torch.isfinite(each).all() for each in load(Artifact, finished.path).tensors.values()
    )
