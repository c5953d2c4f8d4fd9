"""A character measured from end to end, and the suites it is measured on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from colour_world import CharacterColour, SceneColour, evidence, picture, sample
from personae.characters.character import Character
from personae.core.registry import discover
from personae.errors import UsageError
from personae.evaluation.evaluate import Drawn, Encoders, evaluate, measure
from personae.evaluation.metric import Metric, Sample
from personae.evaluation.prompt_contrast import found, margins
from personae.evaluation.scores import Scores
from personae.evaluation.settings import JudgingSettings, second_beside, suite_for
from personae.evaluation.statistics import mean_interval
from personae.evaluation.suite import FIRST_SEED, load_suite, spelled
from personae.training.selection import SEED
from personae.vision.encoder import Encoder
from personae.vision.load import load_encoder

SEEDS = [FIRST_SEED, FIRST_SEED + 1, FIRST_SEED + 2]

PLACES = ("red", "green", "blue")


@pytest.fixture
def character(tmp_path: Path) -> Character:
    """Return a red character of six pictures, one of them held out."""
    folder = tmp_path / "mira"
    folder.mkdir()
    for i in range(6):
        image = picture("red", PLACES[i % 3]).resize((64, 64), 0)
        image.putpixel((0, 0), (250, i, 0))  # no two pictures are the same file
        image.save(folder / f"{i}.png")
    (folder / "character.toml").write_text('class_noun = "girl"\n')
    return Character.open(folder)


def drawn(who: str) -> Drawn:
    """Return every place with two seeds, in two media, and class pictures the base drew too."""
    shots = [
        sample(who, place, prompt=f"a {place} place", shot=place, seed=seed, medium=medium)
        for place, medium in zip(PLACES, (None, "green", "blue"), strict=True)
        for seed in (1, 2)
    ]
    classes = [sample("green", place, shot=f"class_{place}", seed=1) for place in PLACES]
    return Drawn(shots, classes, classes)


def test_a_perfect_copyist_reaches_the_ceiling_and_is_told_apart_from_a_failure(character):
    encoders = Encoders.around(CharacterColour(), SceneColour())
    right = evaluate(drawn("red"), character, encoders).metrics
    wrong = evaluate(drawn("green"), character, encoders).metrics
    assert right["likeness"].mean == pytest.approx(1.0, abs=1e-3)
    assert right["likeness"].share == pytest.approx(1.0, abs=1e-3)
    assert wrong["likeness"].mean == pytest.approx(0.0, abs=1e-2)
    assert right["agreement"].mean == pytest.approx(1.0)
    assert right["medium_adherence"].mean == pytest.approx(1.0, abs=1e-3)
    assert right["drift"].mean == pytest.approx(0.0, abs=1e-6)
    assert set(right) == set(discover(Metric))


def test_each_score_carries_what_pairs_it_with_another(character):
    encoders = Encoders.around(CharacterColour(), SceneColour())
    score = evaluate(drawn("red"), character, encoders, metrics=["likeness"]).metrics["likeness"]
    assert score.keys == tuple((place, seed) for place in PLACES for seed in (1, 2))
    assert score.shots() == ("red", "red", "green", "green", "blue", "blue")
    interval = mean_interval(score.array(), score.shots())
    assert (score.mean, score.low, score.high) == (interval.mean, interval.low, interval.high)


def test_what_cannot_be_measured_is_said_and_the_rest_is_measured():
    scores = measure(evidence([sample("red", shot=place) for place in PLACES]), {})
    assert "hold_out" in scores.metrics["likeness"].note
    assert scores.metrics["drift"].note == "no class prompt was drawn"
    assert scores.metrics["diversity"].note == "it applies to none of the pictures"
    assert scores.metrics["likeness"].mean is None
    assert scores.metrics["consistency"].mean == pytest.approx(1.0)


def test_scores_survive_json(character):
    encoders = Encoders.around(CharacterColour(), SceneColour(), CharacterColour())
    scores = evaluate(drawn("red"), character, encoders)
    text = json.dumps(scores.to_dict(), allow_nan=False)
    assert Scores.from_dict(json.loads(text)) == scores
    assert scores.encoders["identity"] == scores.encoders["second"] == "character_colour (none)"


def test_scores_of_before_there_was_a_second_encoder_or_a_floor_still_open(character):
    encoders = Encoders.around(CharacterColour(), SceneColour())
    stored = evaluate(drawn("red"), character, encoders).to_dict()
    for name in ("likeness_second", "prompt_following", "right_prompt"):
        del stored["metrics"][name]
    for metric in stored["metrics"].values():
        del metric["floor"]
    old = Scores.from_dict(stored).metrics["likeness"]
    assert old.floor is None
    assert old.shares() == pytest.approx([value / old.ceiling for value in old.values])


def test_the_second_encoder_is_one_that_is_installed_and_not_the_first(monkeypatch):
    known = discover(Encoder)
    for name in ("efficientnet_lite0", "dinov2", "dino"):
        monkeypatch.setattr(known[name], "installed", lambda: True)
    assert second_beside("toon_identity") == "efficientnet_lite0"
    assert second_beside("efficientnet_lite0:mine.pth") == "dinov2"
    monkeypatch.setattr(known["efficientnet_lite0"], "installed", lambda: False)
    assert second_beside("dinov2") == "none"
    assert JudgingSettings(second="clip").resolved("toon").second == "clip"
    assert JudgingSettings().resolved("toon").second == "dinov2"


@pytest.mark.parametrize(
    ("stored", "words"),
    [({"format": 99}, "format 99"), ({}, "format None"), ({"format": 1}, "incomplete")],
)
def test_scores_of_another_form_are_refused(stored, words):
    with pytest.raises(UsageError, match=words):
        Scores.from_dict(stored)


def test_a_picture_in_which_nobody_is_found_counts_as_unlike_and_is_reported():
    black = Sample(picture("red").point(lambda _: 0), "a red place", "dark", 1)
    scores = measure(evidence([sample("red"), black], held_out=[picture("red")]), {})
    assert scores.unseen == 1
    assert scores.metrics["likeness"].values == pytest.approx((1.0, 0.0))


def test_nothing_to_measure_an_unknown_metric_and_a_repeated_shot_are_refused():
    with pytest.raises(UsageError, match="no pictures to measure"):
        measure(evidence([]), {})
    with pytest.raises(UsageError, match="Did you mean 'likeness'"):
        measure(evidence([sample("red")]), {}, metrics=["likenes"])
    with pytest.raises(UsageError, match="'shot' was drawn twice with seed 0"):
        measure(evidence([sample("red"), sample("green")]), {})


@pytest.mark.parametrize("name", ["toon", "general"])
def test_a_shipped_suite_asks_for_scenes_expressions_and_media(name):
    suite = load_suite(name)
    kinds = [shot.kind for shot in suite.shots]
    assert {kind: kinds.count(kind) for kind in kinds} == {"scene": 8, "expression": 4, "medium": 4}
    assert len(suite.class_shots) >= 4
    assert not {s.prompt for s in suite.class_shots} & {s.prompt for s in suite.shots}


def test_requests_name_the_character_to_the_base_and_its_class_to_the_metric():
    suite = load_suite("toon")
    requests = suite.requests("{mira}", "alien", SEEDS[:2])
    assert len(requests) == 32
    first = requests[0]
    assert (first.prompt, first.text) == ("a {mira} at the beach", "an alien at the beach")
    assert [r.seed for r in requests[:4]] == [1001, 1002, 2001, 2002]
    media = {r.medium for r in requests} - {None}
    assert media == {"pencil drawing", "watercolor", "pixel art", "woodcut"}
    answer = first.answered(picture("red"))
    assert (answer.prompt, answer.key) == ("an alien at the beach", ("beach", 1001))
    classes = suite.class_requests("girl", [7])
    assert classes[0].prompt == classes[0].text == "a girl in a garden"


def test_no_two_shots_share_their_noise():
    suite = load_suite("toon")
    seeds = [r.seed for r in suite.requests("{mira}", "girl", SEEDS)]
    assert len(set(seeds)) == 3 * len(suite.shots)
    of_class = [r.seed for r in suite.class_requests("girl", SEEDS[:2])]
    assert len(set(of_class)) == 2 * len(suite.class_shots)
    checkpoints = suite.requests("{mira}", "girl", [SEED])
    assert not {r.seed for r in checkpoints} & set(seeds)


def test_a_small_suite_keeps_the_first_of_each_kind():
    small = load_suite("toon").part(scenes=3, expressions=1, media=2)
    assert [s.kind for s in small.shots] == ["scene"] * 3 + ["expression"] + ["medium"] * 2
    assert len(small.class_shots) == 6


def test_the_prompts_of_a_kind_of_shot_name_whom_they_show():
    suite = load_suite("toon")
    scenes = suite.prompts("{mira}", "scene")
    assert scenes[0] == "a {mira} at the beach"
    assert len(scenes) == len(suite.of_kind("scene")) == 8
    assert len(suite.prompts("{mira}")) == len(suite.shots)


def test_the_suite_fits_the_base_unless_one_is_named():
    assert suite_for("toon").name == "toon"
    assert suite_for("owner/name").name == "general"
    assert suite_for("toon", "general").name == "general"


def test_the_article_fits_the_noun():
    assert spelled("a pencil drawing of a {character}", "emoji face").endswith("of an emoji face")
    assert spelled("an {class}, a {class}", "robot") == "a robot, a robot"


SHOT = '[[shots]]\nid = "{id}"\nkind = "{kind}"\nprompt = "{prompt}"\n'


@pytest.mark.parametrize(
    ("shot", "words"),
    [
        ({"id": "b", "kind": "scene", "prompt": "nobody at home"}, "does not hold {character}"),
        ({"id": "b", "kind": "medium", "prompt": "a {character}"}, "needs 'medium'"),
        ({"id": "a", "kind": "scene", "prompt": "a {character}"}, "two shots are called 'a'"),
        ({"id": "B b", "kind": "scene", "prompt": "a {character}"}, "should match pattern"),
        ({"id": "b", "kind": "place", "prompt": "a {character}"}, "'scene'"),
    ],
)
def test_a_wrong_suite_file_is_refused_in_words(tmp_path, shot, words):
    good = {"id": "a", "kind": "scene", "prompt": "a {character} here"}
    text = 'name = "mine"\n' + SHOT.format(**good) + SHOT.format(**shot)
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(UsageError) as error:
        load_suite(tmp_path / "mine.toml")
    assert words in str(error.value)
    assert "mine.toml" in str(error.value)


def test_an_unknown_suite_is_refused_with_the_nearest_name():
    with pytest.raises(UsageError, match="Did you mean 'toon'"):
        load_suite("tone")
    with pytest.raises(UsageError, match="cannot be read"):
        load_suite("nowhere.toml")


def test_a_suite_of_ones_own_is_read(tmp_path):
    shots = [SHOT.format(id=name, kind="scene", prompt="{character} " + name) for name in "ab"]
    (tmp_path / "mine.toml").write_text('name = "mine"\n' + "".join(shots))
    suite = load_suite(tmp_path / "mine.toml")
    assert [r.prompt for r in suite.requests("mira", "girl", [0])] == ["mira a", "mira b"]
    assert suite.class_requests("girl", [0]) == []


def test_a_suite_brings_real_pictures_of_its_shots(tmp_path):
    shots = [SHOT.format(id=name, kind="scene", prompt="a {character} " + name) for name in "ab"]
    text = 'name = "mine"\nreferences = "pictures"\n' + "".join(shots)
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(UsageError, match="is no folder"):
        load_suite(tmp_path / "mine.toml")
    folder = tmp_path / "pictures" / "old_man"
    folder.mkdir(parents=True)
    for name in "ab":
        picture("red").save(folder / f"{name}.png")
    suite = load_suite(tmp_path / "mine.toml")
    (found,) = suite.pictures()
    assert [each.prompt for each in found] == ["an old man a", "an old man b"]
    assert [each.shot for each in found] == ["a", "b"]
    assert len(suite.part(scenes=1).pictures()[0]) == 1
    (folder / "b.png").write_bytes(b"no picture")
    with pytest.raises(UsageError, match="no picture of shot 'b' can be read"):
        suite.pictures()


def test_the_real_pictures_of_toon_are_told_apart_and_one_picture_for_all_prompts_is_seen():
    encoder = load_encoder("toon_clip", device="cpu")
    for group in load_suite("toon").pictures():
        assert len(group) == 16
        assert found(encoder, group).mean() > 0.6
        assert found(encoder, group[:8]).all()  # scenes; expressions are hardly read
        swallowed = [replace(each, image=group[0].image) for each in group]
        assert margins(encoder, group).mean() > 0.25
        assert margins(encoder, swallowed).mean() == pytest.approx(0, abs=1e-6)


def test_values_of_a_metric_that_skips_some_pictures_keep_their_place(character):
    encoders = Encoders.around(CharacterColour(), SceneColour())
    score = evaluate(drawn("red"), character, encoders).metrics["medium_adherence"]
    assert score.values[:2] == (None, None)
    assert np.isnan(score.array()[:2]).all()
    assert len(score.values) == len(score.keys) == 6
