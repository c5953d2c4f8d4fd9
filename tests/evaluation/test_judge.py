"""A judge: what the base alone drew is drawn once, and is what was asked for."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from personae.characters.character import Character
from personae.core.cache import default_folder
from personae.evaluation.judge import Judge
from personae.evaluation.settings import JudgingSettings
from personae.models.family import Family
from study_world import build, judging


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with encoders and a suite of few shots."""
    return build(tmp_path_factory.mktemp("world"))


def judge_of(world: Path, character: Path, base: Family) -> Judge:
    settings = JudgingSettings.parse(judging(world) | {"class_seeds": 2})
    return Judge.of(settings, base, Character.open(character))


def test_pictures_of_the_base_that_were_exchanged_are_drawn_anew(
    world: Path, character: Path, sd1: Family
) -> None:
    judge = judge_of(world, character, sd1)
    first = [each.image.tobytes() for each in judge.untouched()]
    assert len(set(first)) == len(first)
    for folder in (default_folder() / "untouched").iterdir():
        one, other = (folder / f"{i:03d}.png" for i in range(2))  # one prompt, two seeds
        shutil.copy(one, folder / "aside.png")
        shutil.copy(other, one)
        shutil.copy(folder / "aside.png", other)
    assert [each.image.tobytes() for each in judge.untouched()] == first


def test_scores_do_not_depend_on_whether_the_cache_can_be_written(
    world: Path, character: Path, sd1: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scores() -> dict[str, object]:
        judge = judge_of(world, character, sd1)
        untouched, requests = judge.untouched(), judge.requests("man")
        pictures = judge.draw(requests)
        return judge.measure(requests, pictures, untouched, untouched).to_dict()

    kept = scores()
    (tmp_path / "file").touch()
    monkeypatch.setenv("PERSONAE_CACHE", str(tmp_path / "file" / "below"))
    assert scores() == kept
