"""Casts: who is on a base, how strongly, at which moment, and who is asked for in a prompt."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from personae.artifacts.artifact import Artifact
from personae.artifacts.strength import Strength
from personae.errors import ArtifactError, UsageError
from personae.generation.cast import Cast
from personae.models.family import Family
from tiny_world import artifact_of, bare, bases, make, prediction, stir


@pytest.fixture
def files(sd1: Family, tmp_path: Path) -> dict[str, Path]:
    """Return {name: file} of two trained LoRAs and a hypernetwork."""
    made = {
        "mira": stir(make("lora", sd1, rank=2), 0.3, seed=1),
        "juno": stir(make("lora", sd1, rank=4), 0.3, seed=2),
        "vega": stir(make("hypernetwork", sd1), 0.1, seed=3),
    }
    return {
        name: artifact_of(technique, sd1).save(tmp_path / f"{name}.safetensors")
        for name, technique in made.items()
    }


# Strength


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0.8", {0.0: 0.8, 0.5: 0.8, 1.0: 0.8}),
        (1, {0.0: 1.0, 1.0: 1.0}),
        ("-0.5", {0.3: -0.5}),
        ("0:1,1:0", {0.0: 1.0, 0.25: 0.75, 1.0: 0.0}),
        (" 0.2:1 , 0.6:0 ", {0.0: 1.0, 0.2: 1.0, 0.4: 0.5, 0.6: 0.0, 1.0: 0.0}),
        ("0:1,0.5:1,0.5:0", {0.0: 1.0, 0.49: 1.0, 0.5: 0.0, 1.0: 0.0}),
    ],
)
def test_a_strength_runs_along_its_keyframes(text: str, values: dict[float, float]) -> None:
    strength = Strength.parse(text)
    for progress, value in values.items():
        assert strength.at(progress) == pytest.approx(value)


@pytest.mark.parametrize("text", ["0.8", "1", "0:1,0.5:0.2", "0:1,0.5:1,0.5:0"])
def test_a_strength_reads_back_what_it_prints(text: str) -> None:
    assert str(Strength.parse(text)) == text
    assert Strength.parse(str(Strength.parse(text))) == Strength.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "strong",
        "0.5:1,0.2:0",
        "1.5:1",
        "-0.1:1",
        "0:1:2",
        "nan",
        "inf",
        "1e308",
        "0:-101",
        ":",
        "1,",
    ],
)
def test_a_strength_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(
        UsageError, match=r"strength is .*; expected a number such as 0\.8"
    ) as error:
        Strength.parse(text)
    assert "\n" not in str(error.value)


# On and off a base


def test_a_cast_is_on_its_base_for_the_length_of_a_block(
    sd1: Family, files: dict[str, Path]
) -> None:
    plain = prediction(sd1)
    cast = Cast.load(files)
    with cast.on(sd1):
        assert not torch.equal(prediction(sd1), plain)
    assert torch.equal(prediction(sd1), plain)
    with cast.on(sd1):
        again = prediction(sd1)
    with Cast.load(files).on(sd1):
        assert torch.equal(prediction(sd1), again)
    assert bare(sd1)


def test_an_error_inside_the_block_still_frees_the_base(
    sd1: Family, files: dict[str, Path]
) -> None:
    with pytest.raises(ZeroDivisionError), Cast.load(files).on(sd1):
        raise ZeroDivisionError
    assert bare(sd1)


def test_a_member_that_does_not_fit_leaves_nobody_on_the_base(
    sd1: Family, files: dict[str, Path]
) -> None:
    other = bases()["tiny-sd2"]
    foreign = artifact_of(stir(make("lora", other)), other)
    cast = Cast.load({"mira": files["mira"]})
    cast.add("zoe", foreign)
    with pytest.raises(ArtifactError, match="was made for base 'tiny-sd2'"), cast.on(sd1):
        pass
    assert bare(sd1)


def test_members_are_switched_on_a_loaded_base(sd1: Family, files: dict[str, Path]) -> None:
    drawn = {}
    for name, path in files.items():
        with Cast.load({name: path}).on(sd1):
            drawn[name] = prediction(sd1)
    plain = prediction(sd1)
    cast = Cast()
    with cast.on(sd1):
        assert torch.equal(prediction(sd1), plain)
        for name in ("mira", "vega", "juno"):
            cast.add("who", Artifact.load(files[name]))
            assert torch.equal(prediction(sd1), drawn[name])
        cast.remove("who")
        cast.remove("nobody")
        assert torch.equal(prediction(sd1), plain)


def test_strengths_are_those_asked_for(sd1: Family, files: dict[str, Path]) -> None:
    (technique,) = Artifact.load(files["mira"]).build(sd1)
    technique.strength = 0.25
    technique.inject()
    wanted = prediction(sd1)
    technique.eject()
    with Cast.load({"mira": files["mira"]}, {"mira": "0.25"}).on(sd1):
        assert torch.equal(prediction(sd1), wanted)


def test_members_with_one_word_share_a_cast_under_words_of_their_own(
    sd1: Family, caplog: pytest.LogCaptureFixture
) -> None:
    first = artifact_of(stir(make("textual_inversion", sd1), seed=1), sd1)
    pair = [stir(make("textual_inversion", sd1), seed=2), make("lora", sd1)]
    second = artifact_of(pair, sd1)
    alone = []
    for artifact in (first, second):
        cast = Cast()
        cast.add("a", artifact)
        with cast.on(sd1):
            alone.append(cast.encode(sd1, cast.spell("{a} at sea")).embeds)
    cast = Cast()
    cast.add("a", first)
    cast.add("b", second)
    with cast.on(sd1):
        assert [cast.spell("{a}"), cast.spell("{b}")] == ["<mira>", "<b>"]
        for name, wanted in zip("ab", alone, strict=True):
            assert torch.equal(cast.encode(sd1, cast.spell(f"{{{name}}} at sea")).embeds, wanted)
    assert "'b' brings the word <mira>" in caplog.text
    assert cast.members["b"].phrase == "<mira>"
    assert bare(sd1)
    assert not sd1.towers[0].has_placeholder("<mira>")
    assert not sd1.towers[0].has_placeholder("<b>")


def test_a_strength_for_nobody_is_refused_with_the_nearest(files: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match=r"'mirra', who is not in the cast.*Did you mean 'mira'"):
        Cast.load(files, {"mirra": "1"})


# Prompts


def test_a_prompt_is_spelt_with_the_phrase_of_each_member(files: dict[str, Path]) -> None:
    cast = Cast.load(files)
    assert cast.spell("{mira} and {juno}, {mira}!") == "mira cat and mira cat, mira cat!"
    assert cast.mentioned("{juno} and {mira} and {juno}") == ["juno", "mira"]
    assert cast.mentioned("a plain prompt") == ["mira", "juno", "vega"]


@pytest.mark.parametrize("word", ["mirra", "mira "])
def test_an_unknown_name_in_a_prompt_is_refused_with_the_nearest(
    files: dict[str, Path], word: str
) -> None:
    with pytest.raises(UsageError, match="who is not in the cast") as error:
        Cast.load(files).spell(f"{{{word}}} at the beach")
    assert "(mira, juno, vega)" in str(error.value)
    assert "Did you mean 'mira'" in str(error.value)
    with pytest.raises(UsageError, match=r"not in the cast \(nobody\)"):
        Cast().spell("{mira}")


def test_braces_without_a_name_are_refused_with_one_to_write(files: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match=r"braces without a name.*write \{mira\}"):
        Cast.load(files).mentioned("a picture of { }")


def test_doubled_braces_are_braces(files: dict[str, Path]) -> None:
    cast = Cast.load({"mira": files["mira"]})
    assert cast.spell("{{x}} by {mira} {{{mira}}}") == "{x} by mira cat {mira cat}"
    assert cast.mentioned("{{x}}") == ["mira"]
    with pytest.raises(UsageError, match=r"write \{\{x\}\} for braces"):
        cast.spell("{x}")


def test_the_negative_prompt_names_members_of_its_own(sd1: Family, files: dict[str, Path]) -> None:
    word = artifact_of(stir(make("textual_inversion", sd1)), sd1)
    cast = Cast.load(files)
    cast.add("neg", word)
    with cast.on(sd1):
        everybody = {*files, "neg"}
        assert cast.acting("{mira} at sea", "") == ({"mira"}, {"mira"})
        assert cast.acting("{mira} at sea", "blurry, {neg}") == ({"mira"}, {"mira", "neg"})
        assert cast.acting("{mira} at sea", "blurry, <mira>") == ({"mira"}, {"mira", "neg"})
        assert cast.acting("the sea", "{neg}") == (everybody - {"neg"}, everybody)
        assert cast.acting("the sea", "") == (everybody, everybody)
        with pytest.raises(UsageError, match=r"names \{nag\}, who is not in the cast"):
            cast.acting("{mira}", "{nag}")
