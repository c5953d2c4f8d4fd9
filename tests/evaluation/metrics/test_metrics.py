"""Every metric on sets of pictures whose value is known beforehand."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import ImageOps

from colour_world import SceneColour, evidence, picture, sample
from personae.core.registry import discover
from personae.errors import UsageError
from personae.evaluation.evaluate import score
from personae.evaluation.metric import Metric, Sample
from personae.evaluation.metrics.agreement import Agreement
from personae.evaluation.metrics.clip_i import ClipI
from personae.evaluation.metrics.consistency import Consistency
from personae.evaluation.metrics.diversity import Diversity
from personae.evaluation.metrics.drift import Drift
from personae.evaluation.metrics.likeness import Likeness
from personae.evaluation.metrics.likeness_second import LikenessSecond
from personae.evaluation.metrics.medium_adherence import MediumAdherence
from personae.evaluation.metrics.memorisation import NEARER, Memorisation
from personae.evaluation.metrics.prior_collapse import PriorCollapse
from personae.evaluation.metrics.prompt_following import PromptFollowing
from personae.evaluation.metrics.right_prompt import RightPrompt

REDS = [picture("red"), picture("red", "blue")]
BLEND = 1 / np.sqrt(3)
"""Cosine of a red-green-blue blend to each of the three."""


@pytest.mark.parametrize("metric", discover(Metric).values(), ids=lambda m: m.name)
def test_every_metric_gives_one_value_per_picture_in_words_and_numbers(metric: type[Metric]):
    drawn = [
        sample("red", scene, shot=scene, seed=seed, medium=scene)
        for scene in ("red", "green")
        for seed in (1, 2)
    ]
    classes = [sample("blue", "green", shot="class", seed=seed) for seed in (1, 2, 3)]
    seen = evidence(drawn, REDS, REDS, classes, classes, second=SceneColour())
    values = metric()(seen)
    assert metric().missing(seen) is None
    assert values.shape == (len(getattr(seen, metric.over)),)
    assert values.dtype == np.float64
    assert np.isfinite(values).all()
    assert metric.better in ("higher", "lower")
    assert all((metric.title, metric.unit, metric.source, metric.__doc__))


@pytest.mark.parametrize("metric", discover(Metric).values(), ids=lambda m: m.name)
def test_every_metric_says_what_it_lacks(metric: type[Metric]):
    lacking = metric().missing(evidence([]))
    assert lacking is not None
    assert "\n" not in lacking


@pytest.mark.parametrize("metric", [Likeness(), ClipI()], ids=lambda m: m.name)
def test_likeness_is_one_for_identical_and_zero_for_disjoint_sets(metric: Metric):
    held_out = [picture("red", "red")] * 3
    seen = evidence([sample("red", "red"), sample("green", "green")], held_out=held_out)
    np.testing.assert_allclose(metric(seen), [1.0, 0.0], atol=1e-6)


def test_likeness_is_the_mean_over_all_pairs():
    held_out = [picture("red"), picture("red"), picture("green"), picture("blue")]
    seen = evidence([sample("red"), sample("green")], held_out=held_out)
    np.testing.assert_allclose(Likeness()(seen), [0.5, 0.25], atol=1e-6)


def test_likeness_ranks_pictures_by_how_much_of_the_character_is_right():
    half_right = picture("red")
    half_right.paste((0, 255, 0), (0, 0, 4, 4))
    drawn = [sample("green"), Sample(half_right, "", "shot", 1), sample("red")]
    values = Likeness()(evidence(drawn, held_out=REDS))
    assert values[0] < values[1] < values[2]


def test_the_likeness_ceiling_leaves_each_real_picture_out_of_its_own_comparison():
    held_out = [picture("red"), picture("green")]
    seen = evidence([sample("red")], training=[picture("red")], held_out=held_out)
    # red: (1 + 0) / 2; the held-out red: 0 to the green; the held-out green: 0 to the red.
    assert Likeness().ceiling(seen) == pytest.approx(0.5 / 3)


def test_a_single_held_out_picture_gives_a_ceiling_from_the_training_pictures():
    seen = evidence([sample("red")], training=[picture("red"), picture("green")], held_out=REDS[:1])
    assert Likeness().ceiling(seen) == pytest.approx(0.5)


def test_likeness_has_no_ceiling_without_held_out_pictures():
    seen = evidence([sample("red")], training=REDS)
    assert Likeness().ceiling(seen) is None
    assert "hold_out" in Likeness().missing(seen)


def test_the_second_encoder_sees_likeness_its_own_way():
    drawn = [sample("red", "green"), sample("green", "red")]
    seen = evidence(drawn, held_out=[picture("red", "red")] * 2, second=SceneColour())
    np.testing.assert_allclose(Likeness()(seen), [1.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(LikenessSecond()(seen), [0.0, 1.0], atol=1e-6)
    alone = evidence(drawn, held_out=REDS)
    assert "no second encoder" in LikenessSecond().missing(alone)


def test_likeness_is_nothing_for_other_characters_and_whole_for_the_characters_own_pictures():
    own = [picture("red"), picture("red", "green")]
    blend = picture("red")
    blend.paste((0, 255, 0), (0, 0, 8, 2))  # red and green: 0.71 alike to a red character
    classes = [Sample(blend, "", "class", seed) for seed in (1, 2)]
    reds = [sample("red", shot="other")]
    for more in (
        {"suite_pictures": [classes]},
        {"base_class": classes, "suite_pictures": [reds]},
        {"base_generated": classes, "base_class": reds},
    ):
        others = score(Likeness(), evidence(classes, own, own, **more))
        itself = score(Likeness(), evidence([sample("red")], own, own, **more))
        worse = score(Likeness(), evidence([sample("green")], own, own, **more))
        assert others.floor == pytest.approx(1 / np.sqrt(2))
        assert (others.share, itself.share) == (pytest.approx(0), pytest.approx(1))
        assert worse.share == pytest.approx(-others.floor / (1 - others.floor))
        assert others.shares() == pytest.approx([0, 0], abs=1e-6)


def test_where_other_characters_are_as_alike_there_is_no_scale():
    reds = [sample("red", shot="other")]
    same = score(Likeness(), evidence(reds, REDS, REDS, suite_pictures=[reds]))
    assert same.share is None
    assert same.shares() == []


def test_agreement_compares_each_picture_with_its_own_prompt():
    drawn = [
        sample("red", "green", prompt="a girl in a green place"),
        sample("red", "green", prompt="a girl in a blue place"),
        sample("red", "green", prompt="a girl in a red green blue place"),
    ]
    np.testing.assert_allclose(Agreement()(evidence(drawn)), [1.0, 0.0, BLEND], atol=1e-6)


PLACES = ("red", "green", "blue")


def asked(scenes: tuple[str, ...], shots: tuple[str, ...] = PLACES) -> list[Sample]:
    """Return one picture of each scene, asked for in the words of each shot."""
    return [
        sample("red", scene, prompt=f"a {shot} place", shot=shot)
        for scene, shot in zip(scenes, shots, strict=True)
    ]


def test_following_prompts_is_nothing_where_one_picture_answers_all_and_whole_where_each_does():
    swallowed, right = evidence(asked(("red",) * 3)), evidence(asked(PLACES))
    np.testing.assert_allclose(PromptFollowing()(swallowed), [1.0, -0.5, -0.5], atol=1e-6)
    np.testing.assert_allclose(PromptFollowing()(right), 1.0, atol=1e-6)
    np.testing.assert_allclose(RightPrompt()(swallowed), [1, 0, 0])
    np.testing.assert_allclose(RightPrompt()(right), 1)
    assert RightPrompt().details(right) == {"prompts": 3, "chance": pytest.approx(1 / 3)}


def test_agreement_does_not_see_a_prompt_that_is_ignored_and_following_does():
    blends = [picture("red", "red", "green") for _ in PLACES]  # as near to two prompts as to one
    drawn = [
        Sample(image, f"a {place} place", place, 0)
        for image, place in zip(blends, PLACES, strict=True)
    ]
    assert Agreement()(evidence(drawn)).mean() == pytest.approx(2 / 3 / np.sqrt(2))
    assert PromptFollowing()(evidence(drawn)).mean() == pytest.approx(0, abs=1e-6)


def test_real_pictures_of_the_suite_are_the_upper_end_of_following_prompts():
    others = [asked(PLACES), asked(("red", "green", "red"))]
    seen = evidence(asked(PLACES), suite_pictures=others)
    assert PromptFollowing().ceiling(seen) == pytest.approx((1.0 + (1 + 1 - 0.5) / 3) / 2)
    assert RightPrompt().ceiling(seen) == pytest.approx((1 + 2 / 3) / 2)
    assert PromptFollowing().details(seen) == {"scale": "6 real pictures of the suite's prompts"}


def test_without_them_the_captions_of_the_character_are_if_they_say_enough():
    pictures = [picture("red", scene) for scene in ("red", "green", "blue")]
    mixed = picture("red", "red", "green")
    captions = ["a red place", "a green place", "a blue place", "a red green place"]
    seen = evidence(asked(PLACES), [*pictures, mixed], captions=captions)
    half = 1 / np.sqrt(2)  # each of red and green is as near as this to the caption of both
    expected = (2 * (1 - half / 3) + 1 + (1 - 2 * half / 3)) / 4
    assert PromptFollowing().ceiling(seen) == pytest.approx(expected)
    assert "4 pictures of the character" in PromptFollowing().details(seen)["scale"]
    for few in (["a red place"] * 4, [*captions[:3], captions[0]], ["a blue place", *captions[:3]]):
        poor = evidence(asked(PLACES), [*pictures, mixed], captions=few)
        assert PromptFollowing().ceiling(poor) is None
        assert PromptFollowing().details(poor)["scale"].startswith("none: ")
    assert RightPrompt().ceiling(seen) is None


def test_a_single_prompt_cannot_be_told_from_others():
    for metric in (PromptFollowing(), RightPrompt()):
        assert "single prompt" in metric.missing(evidence([sample("red")]))


def test_consistency_is_one_for_one_character_everywhere_whoever_it_is():
    drawn = [sample("green", scene, shot=scene) for scene in ("red", "green", "blue")]
    np.testing.assert_allclose(Consistency()(evidence(drawn, held_out=REDS)), 1.0, atol=1e-6)


def test_consistency_is_zero_if_every_scene_shows_another_character():
    drawn = [
        sample(who, shot=who, seed=seed) for who in ("red", "green", "blue") for seed in (1, 2)
    ]
    np.testing.assert_allclose(Consistency()(evidence(drawn)), 0.0, atol=1e-6)


def test_consistency_needs_a_second_shot():
    drawn = [sample("red", seed=1), sample("red", seed=2)]
    assert np.isnan(Consistency()(evidence(drawn))).all()


def test_the_consistency_ceiling_is_the_mean_over_pairs_of_real_pictures():
    seen = evidence([sample("red")], [picture("red"), picture("green")], [picture("red")])
    assert Consistency().ceiling(seen) == pytest.approx(1 / 3)


def test_diversity_is_zero_if_seeds_change_nothing_and_one_if_they_share_nothing():
    same = [sample("red", "red", shot="same", seed=seed) for seed in (1, 2)]
    apart = [sample(c, c, shot="apart", seed=i) for i, c in enumerate(("red", "green", "blue"))]
    values = Diversity()(evidence([*same, *apart]))
    np.testing.assert_allclose(values, [0, 0, 1, 1, 1], atol=1e-6)


def test_diversity_does_not_apply_to_a_shot_drawn_once():
    values = Diversity()(evidence([sample("red", shot="once"), sample("red", shot="other")]))
    assert np.isnan(values).all()


def test_drift_is_zero_for_the_base_itself_and_half_for_unrelated_pictures():
    before = [sample("red", "red", seed=1), sample("red", "green", seed=2)]
    after = [sample("red", "blue", seed=2), sample("red", "red", seed=1)]
    seen = evidence([], class_generated=after, base_class=before)
    np.testing.assert_allclose(Drift()(seen), [0.5, 0.0], atol=1e-6)


def test_drift_refuses_a_picture_the_base_did_not_draw():
    seen = evidence([], class_generated=[sample("red", seed=7)], base_class=[sample("red", seed=8)])
    with pytest.raises(UsageError, match="no 'shot' with seed 7"):
        Drift()(seen)


def test_prior_collapse_is_high_if_others_become_the_character_and_tells_the_base_value():
    others = [sample("red", shot="class"), sample("green", shot="class", seed=1)]
    untouched = [sample("green", shot="class"), sample("green", shot="class", seed=1)]
    seen = evidence([], REDS, class_generated=others, base_class=untouched)
    np.testing.assert_allclose(PriorCollapse()(seen), [1.0, 0.0], atol=1e-6)
    assert PriorCollapse().details(seen) == {"base": pytest.approx(0.0, abs=1e-6)}


def test_memorisation_calls_copies_and_mirrored_copies_but_not_new_pictures():
    training = [picture("red", "red", "green"), picture("red", "blue"), picture("red", "green")]
    drawn = [
        Sample(training[1], "", "copy", 1),
        Sample(ImageOps.mirror(training[0]), "", "mirrored", 1),
        sample("green", "red", shot="new"),
    ]
    seen = evidence(drawn, training)
    found = Memorisation().details(seen)
    np.testing.assert_allclose(Memorisation()(seen)[:2], 1.0, atol=1e-6)
    assert found["copies"] == [True, True, False]
    assert found["nearest"][:2] == [1, 0]
    assert found["copied"] == [1, 1, 0]
    # The first and the last training picture share the character and half of the scene: 0.75.
    assert found["threshold"] == pytest.approx(1 - NEARER * 0.25)


def test_a_picture_no_nearer_than_real_pictures_are_to_each_other_is_no_copy():
    training = [picture("red", "red"), picture("red", "blue")]
    seen = evidence([sample("red", "green")], training, [picture("red", "green")])
    assert Memorisation()(seen) == pytest.approx([0.5])
    assert Memorisation().details(seen)["copies"] == [False]


def test_copies_cannot_be_told_from_a_single_real_picture():
    seen = evidence([sample("red")], [picture("red")])
    assert Memorisation().details(seen)["threshold"] is None
    assert Memorisation().details(seen)["copies"] == [False]


def test_medium_adherence_credits_likeness_only_where_the_medium_is_right():
    drawn = [
        sample("red", "green", prompt="a green drawing", medium="green", shot="g"),
        sample("red", "green", prompt="a blue drawing", medium="blue", shot="b"),
        sample("green", "blue", prompt="a blue drawing", medium="blue", shot="b", seed=1),
        sample("red", "red", shot="no medium"),
    ]
    seen = evidence(drawn, held_out=REDS)
    np.testing.assert_allclose(MediumAdherence()(seen), [1.0, 0.0, 0.0, np.nan], atol=1e-6)
    found = MediumAdherence().details(seen)
    assert found == {"recognised": pytest.approx(2 / 3), "media": {"green": 1.0, "blue": 0.5}}


def test_a_single_medium_cannot_be_recognised():
    drawn = [sample("red", medium="green")]
    assert "fewer than two media" in MediumAdherence().missing(evidence(drawn, held_out=REDS))
