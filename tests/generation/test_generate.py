"""Drawing: rows and batches, casts that change, and the same bytes from a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from personae.artifacts.artifact import Artifact
from personae.artifacts.strength import Strength
from personae.errors import UsageError
from personae.generation.cast import Cast, Member
from personae.generation.generate import Drawing, draw, generate
from personae.generation.picture import Picture
from personae.generation.redraw import redraw
from personae.generation.sampler import Shot, starting_noise
from personae.generation.settings import Sampling
from personae.models.family import Family
from tiny_world import artifact_of, bare, bases, make, stir

FAST = Sampling(steps=3)
KINDS = ("lora", "hypernetwork", "textual_inversion", "dreambooth")


def pixels(picture: Picture) -> np.ndarray:
    return np.asarray(picture.image, dtype=np.int16)


def alike(one: Picture, two: Picture) -> bool:
    """Say whether pictures differ by roundings at most: batches may sum in another order.

    Two levels of 255: processors with matrix units take other kernels for other batch sizes.
    """
    return int(np.abs(pixels(one) - pixels(two)).max()) <= 2


@pytest.fixture
def files(sd1: Family, tmp_path: Path) -> dict[str, Path]:
    return {
        name: artifact_of(stir(make(name, sd1), 0.1 if name != "lora" else 0.3), sd1).save(
            tmp_path / f"{name}.safetensors"
        )
        for name in KINDS
    }


def test_pictures_come_in_the_order_of_the_shots_with_progress_between(base: Family) -> None:
    shots = [Shot("the man", seed) for seed in range(5)]
    events = list(generate(base, shots, FAST, batch_size=2))
    progress = [event for event in events if isinstance(event, Drawing)]
    assert [event.done for event in progress] == list(range(1, 10))
    assert {event.total for event in progress} == {9}
    assert isinstance(events[3], Picture)  # the first batch comes before the second is begun
    pictures = [event for event in events if isinstance(event, Picture)]
    assert [picture.recipe.seed for picture in pictures] == list(range(5))
    for picture, shot in zip(pictures, shots, strict=True):
        assert alike(picture, draw(base, [shot], FAST)[0])


def test_the_same_seed_gives_the_same_bytes_and_another_another(sd1: Family) -> None:
    one, two, other = (draw(sd1, [Shot("the man", seed)], FAST)[0] for seed in (1, 1, 2))
    assert one.image.tobytes() == two.image.tobytes()
    assert one.image.tobytes() != other.image.tobytes()


def test_noise_is_each_rows_own(sd1: Family) -> None:
    together = starting_noise(sd1, [Shot("", 1), Shot("", 2)], FAST)
    alone = starting_noise(sd1, [Shot("", 2)], FAST)
    assert torch.equal(together[1:], alone)


@pytest.mark.parametrize("name", KINDS)
def test_a_recipe_in_a_file_draws_the_same_bytes_again(
    sd1: Family, files: dict[str, Path], tmp_path: Path, name: str
) -> None:
    shots = [Shot("{mira} and the can", 1), Shot("a {mira}", 2), Shot("{mira}", 3)]
    with Cast.load({"mira": files[name]}, {"mira": "0.7"}).on(sd1) as cast:
        drawn = draw(sd1, shots, Sampling(steps=3, negative_prompt="the man"), cast)
    path = drawn[1].save(tmp_path / "picture.png")
    kept = Picture.open(path)
    assert kept.recipe == drawn[1].recipe
    assert kept.image.tobytes() == drawn[1].image.tobytes()
    with Cast.load({"mira": files[name]}, {"mira": "0.7"}).on(sd1) as cast:
        again = redraw(sd1, kept.recipe, cast)
    assert again.image.tobytes() == kept.image.tobytes()
    assert again.recipe == kept.recipe


def test_a_recipe_is_refused_on_anything_else(sd1: Family, files: dict[str, Path]) -> None:
    with Cast.load({"mira": files["lora"]}, {"mira": "0.7"}).on(sd1) as cast:
        (drawn,) = draw(sd1, [Shot("a cat", 1)], FAST, cast)
    with pytest.raises(UsageError, match=r"was drawn on base 'tiny-sd1'.*load that one"):
        redraw(bases()["tiny-sd2"], drawn.recipe, Cast())
    with pytest.raises(UsageError, match=r"drawn with 'mira' from lora\.safetensors"):
        redraw(sd1, drawn.recipe, Cast())
    with (
        Cast.load({"mira": files["hypernetwork"]}).on(sd1) as cast,
        pytest.raises(UsageError, match="give that file with --cast mira=FILE"),
    ):
        redraw(sd1, drawn.recipe, cast)


def test_a_recipe_is_refused_with_another_strength_or_one_member_too_many(
    sd1: Family, files: dict[str, Path]
) -> None:
    with Cast.load({"mira": files["lora"]}, {"mira": "0.7"}).on(sd1) as cast:
        (drawn,) = draw(sd1, [Shot("a cat", 1)], FAST, cast)
    with (
        Cast.load({"mira": files["lora"]}).on(sd1) as cast,
        pytest.raises(UsageError, match=r"'mira' at strength 0\.7; here it is 1"),
    ):
        redraw(sd1, drawn.recipe, cast)
    with (
        Cast.load({"mira": files["lora"], "juno": files["hypernetwork"]}, {"mira": "0.7"}).on(
            sd1
        ) as cast,
        pytest.raises(UsageError, match="drawn without 'juno'"),
    ):
        redraw(sd1, drawn.recipe, cast)


def test_a_recipe_is_refused_in_another_precision(sd1: Family) -> None:
    (drawn,) = draw(sd1, [Shot("a cat", 1)], FAST)
    narrow = drawn.recipe.model_copy(update={"precision": "bfloat16"})
    with pytest.raises(UsageError, match="drawn in bfloat16; the loaded base is in float32"):
        redraw(sd1, narrow, Cast())


def test_a_cast_that_is_on_no_base_is_refused(sd1: Family, files: dict[str, Path]) -> None:
    """Otherwise the base alone would be drawn, under the name of the character."""
    cast = Cast.load({"mira": files["lora"]})
    with pytest.raises(UsageError, match=r"'mira' is not on the base; .*with cast\.on\(base\)"):
        draw(sd1, [Shot("{mira}", 1)], FAST, cast)


def test_each_prompt_of_one_batch_has_a_cast_of_its_own(
    sd1: Family, files: dict[str, Path]
) -> None:
    members = {"mira": files["lora"], "juno": files["hypernetwork"]}
    prompts = ["the {mira}", "the {juno}", "{mira} and {juno}", "the man"]
    shots = [Shot(prompt, 4) for prompt in prompts]
    with Cast.load(members).on(sd1) as cast:
        together = draw(sd1, shots, FAST, cast, batch_size=4)
    assert [len(picture.recipe.batch) for picture in together] == [4] * 4
    alone = []
    for shot, names in zip(
        shots, (["mira"], ["juno"], ["mira", "juno"], ["mira", "juno"]), strict=True
    ):
        with Cast.load({name: members[name] for name in names}).on(sd1) as cast:
            alone += draw(sd1, [shot], FAST, cast)
    for mine, wanted in zip(together, alone, strict=True):
        assert alike(mine, wanted)
    assert not alike(together[0], together[1])


ROW_WISE = {
    "lora": {"rank": 2},
    "lora of another rank": {"rank": 4},
    "lora of text": {"rank": 2, "text_encoder": True},
    "hypernetwork": {},
    "hypernetwork of another shape": {"layer_structure": [1, 0.5, 1], "layer_norm": True},
    "textual_inversion": {},
}


@pytest.fixture(scope="module")
def row_wise() -> dict[str, Artifact]:
    """Return characters trained in ways that can be mixed within one call of the denoiser."""
    base, made = bases()["tiny-sd1"], {}
    for seed, (title, settings) in enumerate(ROW_WISE.items()):
        technique = stir(make(title.split()[0], base, **settings), 0.2, seed)
        made[title] = artifact_of(technique, base)
    return made


@pytest.mark.parametrize("pair", combinations(ROW_WISE, 2), ids=" with ".join)
def test_two_characters_in_one_call_are_drawn_as_each_alone(
    sd1: Family, row_wise: dict[str, Artifact], pair: tuple[str, str]
) -> None:
    cast = Cast()
    for name, title, strength in zip(("mira", "juno"), pair, (1.0, 0.7), strict=True):
        cast.add(name, row_wise[title], strength)
    shots = [Shot("the {mira}", 4), Shot("the {juno}", 4), Shot("{mira} and {juno}", 5)]
    calls = []
    with cast.on(sd1):
        watch = sd1.denoiser.register_forward_pre_hook(lambda _, inputs: calls.append(inputs[0]))
        together = draw(sd1, shots, FAST, cast)
        watch.remove()
    assert [len(latents) for latents in calls] == [6] * 3  # guidance doubles the rows
    for shot, mine in zip(shots, together, strict=True):
        alone = Cast({name: cast.members[name] for name in cast.mentioned(shot.prompt)})
        with alone.on(sd1):
            (wanted,) = draw(sd1, [shot], FAST, alone)
        assert alike(mine, wanted)
    assert not alike(together[0], together[1])


def test_a_prompt_is_encoded_once_for_all_its_pictures(
    sd1: Family, row_wise: dict[str, Artifact]
) -> None:
    calls = []
    watch = sd1.towers[0].encoder.register_forward_pre_hook(lambda *_: calls.append(1))
    cast = Cast()
    cast.add("mira", row_wise["textual_inversion"])
    with cast.on(sd1):
        first = draw(sd1, [Shot("{mira}", seed) for seed in range(5)], FAST, cast, batch_size=2)
        assert len(calls) == 2  # the prompt and the empty negative one
        again = draw(sd1, [Shot("{mira}", 0), Shot("{mira}", 1)], FAST, cast)
        assert len(calls) == 2
        cast.members["mira"].strength = Strength.parse("0:1,0.5:0")
        draw(sd1, [Shot("{mira}", 0)], FAST, cast)
        assert len(calls) > 2
    watch.remove()
    assert again[0].image.tobytes() == first[0].image.tobytes()


def test_a_text_is_encoded_anew_when_what_it_depends_on_changes(sd1: Family) -> None:
    """As between the previews of a run, which draw with what is being trained."""
    technique = stir(make("textual_inversion", sd1), 0.2)
    artifact = artifact_of(technique, sd1)
    cast = Cast({"mira": Member(artifact, techniques=[technique.inject()])})
    (before,) = draw(sd1, [Shot("{mira}")], FAST, cast)
    stir(technique, 0.5)
    (after,) = draw(sd1, [Shot("{mira}")], FAST, cast)
    technique.eject()
    assert not alike(before, after)


def test_a_picture_in_tiles_says_so_in_its_recipe(sd1: Family) -> None:
    size = {"steps": 1, "width": 128, "height": 128}
    (whole,) = draw(sd1, [Shot("the man")], Sampling(**size))
    (fitting,) = draw(sd1, [Shot("the man")], Sampling(**size, tile=128))
    (tiled,) = draw(sd1, [Shot("the man")], Sampling(**size, tile=64))
    assert fitting.image.tobytes() == whole.image.tobytes() != tiled.image.tobytes()
    assert redraw(sd1, tiled.recipe, Cast()).image.tobytes() == tiled.image.tobytes()
    with pytest.raises(UsageError, match="100x100"):
        draw(sd1, [Shot("the man")], Sampling(**size, tile=100))


def test_members_that_change_shared_weights_get_batches_of_their_own(
    sd1: Family, files: dict[str, Path]
) -> None:
    members = {"mira": files["lora"], "boss": files["dreambooth"]}
    prompts = ["the {boss}", "the {mira}", "a {boss} man", "{mira}"]
    shots = [Shot(prompt, seed) for seed, prompt in enumerate(prompts)]
    with Cast.load(members).on(sd1) as cast:
        drawn = draw(sd1, shots, FAST, cast)
    assert [picture.recipe.prompt for picture in drawn] == prompts
    assert [[row.prompt for row in picture.recipe.batch] for picture in drawn] == [
        [prompts[0], prompts[2]],
        [prompts[1], prompts[3]],
        [prompts[0], prompts[2]],
        [prompts[1], prompts[3]],
    ]
    with Cast.load({"mira": files["lora"]}).on(sd1) as cast:
        (alone,) = draw(sd1, [shots[1]], FAST, cast)
    assert alike(drawn[1], alone)


def test_a_strength_of_zero_throughout_draws_the_base(sd1: Family, files: dict[str, Path]) -> None:
    (plain,) = draw(sd1, [Shot("the man", 1)], FAST)
    for name in ("lora", "hypernetwork", "dreambooth"):
        with Cast.load({"mira": files[name]}, {"mira": "0"}).on(sd1) as cast:
            (drawn,) = draw(sd1, [Shot("the man", 1)], FAST, cast)
        assert drawn.image.tobytes() == plain.image.tobytes()


@pytest.mark.parametrize("name", KINDS)
def test_a_schedule_switches_a_member_off_in_the_middle(
    sd1: Family, files: dict[str, Path], name: str
) -> None:
    shot, sampling = Shot("the {mira}", 1), Sampling(steps=4, sampler="ddim")
    drawn = {}
    for strength in ("1", "0", "0:1,0.5:1,0.5:0", "0:0,0.5:0,0.5:1"):
        with Cast.load({"mira": files[name]}, {"mira": strength}).on(sd1) as cast:
            (picture,) = draw(sd1, [shot], sampling, cast)
        drawn[strength] = picture.image.tobytes()
    assert len(set(drawn.values())) == 4


def test_members_change_by_hand_in_the_middle_of_a_picture(
    sd1: Family, files: dict[str, Path]
) -> None:
    """Taking a member away between two steps equals a schedule that jumps to 0 there."""
    sampling = Sampling(steps=4, sampler="ddim")
    with Cast.load({"mira": files["lora"]}, {"mira": "0:1,0.5:1,0.5:0"}).on(sd1) as cast:
        (wanted,) = draw(sd1, [Shot("a cat", 1)], sampling, cast)
    with Cast.load({"mira": files["lora"]}).on(sd1) as cast:
        events = generate(sd1, [Shot("a cat", 1)], sampling, cast)
        for event in events:
            if isinstance(event, Drawing) and event.done == 2:
                cast.members["mira"].strength = Strength.parse(0)
            if isinstance(event, Picture):
                mine = event
    assert mine.image.tobytes() == wanted.image.tobytes()


def test_a_character_is_swapped_for_another_in_the_middle(
    sd1: Family, files: dict[str, Path]
) -> None:
    with Cast.load({"mira": files["lora"]}).on(sd1) as cast:
        for event in generate(sd1, [Shot("{mira}", 1)], Sampling(steps=4), cast):
            if isinstance(event, Drawing) and event.done == 2:
                cast.add("mira", Artifact.load(files["hypernetwork"]))
    assert isinstance(event, Picture)
    assert bare(sd1)


def test_a_picture_has_the_asked_size(sd1: Family) -> None:
    (picture,) = draw(sd1, [Shot("the man")], Sampling(steps=1, width=128, height=64))
    assert picture.image.size == (128, 64)
    with pytest.raises(UsageError, match="picture size is 100x64"):
        draw(sd1, [Shot("the man")], Sampling(steps=1, width=100, height=64))


def test_an_unknown_sampler_or_name_is_refused_before_any_work(sd1: Family) -> None:
    with pytest.raises(UsageError, match=r"sampler is 'eular'.*Did you mean 'euler'"):
        draw(sd1, [Shot("the man")], Sampling(sampler="eular"))
    with pytest.raises(UsageError, match="who is not in the cast"):
        draw(sd1, [Shot("the man"), Shot("{mira}")], FAST)


@pytest.mark.parametrize("shots", [[], [Shot("")]])
def test_no_shots_and_empty_prompts_are_fine(sd1: Family, shots: Sequence[Shot]) -> None:
    assert len(draw(sd1, shots, FAST)) == len(shots)


def test_rows_drawn_one_at_a_time_are_the_same_pictures(
    sd1: Family, row_wise: dict[str, Artifact]
) -> None:
    """Each row keeps its own character; recipes draw the same bytes again."""
    cast = Cast()
    for name, technique in (("mira", "textual_inversion"), ("tom", "lora")):
        cast.add(name, row_wise[technique])
    shots = [Shot("{mira}", 1), Shot("{tom}", 2), Shot("the man", 3)]
    rows: list[int] = []
    watch = sd1.denoiser.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    with cast.on(sd1):
        together = draw(sd1, shots, FAST, cast)
        assert set(rows) == {6}
        rows.clear()
        lean = FAST.model_copy(update={"rows_at_once": 1})
        apart = draw(sd1, shots, lean, cast)
        assert set(rows) == {1}
        again = redraw(sd1, apart[1].recipe, cast)
    watch.remove()
    assert all(map(alike, together, apart))
    assert again.image.tobytes() == apart[1].image.tobytes()


@pytest.mark.parametrize("negative", ["{neg}", "<mira>", "blurry, {neg}, dark"])
def test_a_member_acts_where_the_negative_prompt_names_it(
    sd1: Family, files: dict[str, Path], negative: str
) -> None:
    names = {"mira": files["lora"], "neg": files["textual_inversion"]}
    sampling = FAST.model_copy(update={"negative_prompt": negative})
    pictures = []
    for strength in ("1", "0"):
        with Cast.load(names, {"neg": strength}).on(sd1) as cast:
            pictures += draw(sd1, [Shot("{mira} at sea")], sampling, cast)
    assert not alike(*pictures)


def test_a_lora_in_the_negative_prompt_acts_on_its_rows_alone(
    sd1: Family, files: dict[str, Path]
) -> None:
    names = {"neg": files["lora"], "vega": files["hypernetwork"]}
    sampling = FAST.model_copy(update={"negative_prompt": "{neg}"})
    with Cast.load(names).on(sd1) as cast:
        once = draw(sd1, [Shot("{vega}", 1), Shot("{vega} {neg}", 1)], sampling, cast)
        plain = draw(sd1, [Shot("{vega}", 1)], FAST, cast)[0]
    assert not alike(*once)
    assert not alike(once[0], plain)


def test_shared_weights_cannot_act_on_negative_rows_alone(
    sd1: Family, files: dict[str, Path]
) -> None:
    names = {"neg": files["dreambooth"], "mira": files["lora"]}
    sampling = FAST.model_copy(update={"negative_prompt": "{neg}"})
    with (
        Cast.load(names).on(sd1) as cast,
        pytest.raises(UsageError, match="'neg' changes the weights of the whole base"),
    ):
        draw(sd1, [Shot("{mira}")], sampling, cast)


def test_a_member_behind_the_last_token_is_refused_and_lost_words_are_told(
    sd1: Family, files: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    room = sd1.towers[0].length - 2
    with Cast.load({"mira": files["lora"]}).on(sd1) as cast:
        with pytest.raises(UsageError, match=rf"reads {room}; \{{mira\}} stands behind them"):
            draw(sd1, [Shot("the can " * room + "{mira}")], FAST, cast)
        sampling = FAST.model_copy(update={"negative_prompt": "the can " * room + "{mira}"})
        with pytest.raises(UsageError, match=r"\{mira\} stands behind them"):
            draw(sd1, [Shot("{mira}")], sampling, cast)
        assert not [r for r in caplog.records if r.name.startswith("personae")]
        long = Shot("{mira} " + "the can " * room)
        picture = draw(sd1, [long], FAST, cast)[0]
        assert f"the base reads {room}; the words after them are not drawn" in caplog.text
        lost = picture.recipe.model_copy(
            update={"batch": [picture.recipe.batch[0].model_copy(update={"prompt": long.prompt})]}
        )
        assert redraw(sd1, lost, cast).image.tobytes() == picture.image.tobytes()


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1, 10**400])
def test_a_seed_that_no_generator_takes_is_refused(seed: int) -> None:
    with pytest.raises(UsageError, match="must be between"):
        Shot("the can", seed)


@pytest.mark.parametrize("seed", [2**64 - 1, -(2**63)])
def test_the_largest_and_smallest_seeds_draw(sd1: Family, seed: int) -> None:
    assert draw(sd1, [Shot("the can", seed)], FAST)[0].recipe.seed == seed
