"""Textual Inversion: own vectors behind a placeholder, in a vocabulary that never changes."""

from __future__ import annotations

import pytest
import torch

from personae.errors import UnsupportedError, UsageError
from personae.models.family import Family
from personae.techniques.textual_inversion import usual_norm
from tiny_world import make, prediction, stir


def test_the_vocabulary_never_changes(base: Family) -> None:
    tables = [tower.embedding.weight.detach().clone() for tower in base.towers]
    sizes = [len(tower.tokenizer) for tower in base.towers]
    technique = stir(make("textual_inversion", base)).inject()
    assert any(tower.has_placeholder("<mira>") for tower in base.towers)
    prediction(base, ["a <mira> can"])
    assert [len(tower.tokenizer) for tower in base.towers] == sizes
    technique.eject()
    assert [len(tower.tokenizer) for tower in base.towers] == sizes
    for tower, table in zip(base.towers, tables, strict=True):
        assert torch.equal(tower.embedding.weight, table)
        assert not tower.has_placeholder("<mira>")


def test_an_untrained_placeholder_reads_as_its_starting_words(sd1: Family) -> None:
    spelt = sd1.encode_text(["a cat cat the"]).embeds
    technique = make(
        "textual_inversion", sd1, num_vectors=3, initializer_words="cat cat the"
    ).inject()
    try:
        assert torch.equal(sd1.encode_text(["a <mira>"]).embeds, spelt)
    finally:
        technique.eject()


def test_starting_words_repeat_in_turn(sd1: Family) -> None:
    technique = make("textual_inversion", sd1, num_vectors=5, initializer_words="cat the")
    (vectors,) = technique.vectors
    cat, the = (sd1.towers[0].embedding.weight[i] for i in sd1.towers[0].words("cat the"))
    for i, vector in enumerate(vectors):
        assert torch.equal(vector, the if i % 2 else cat)


def test_the_class_noun_is_the_start_when_no_words_are_given(sd1: Family) -> None:
    (vectors,) = make("textual_inversion", sd1).vectors
    (cat,) = sd1.towers[0].words("cat")
    assert torch.equal(vectors[0], sd1.towers[0].embedding.weight[cat])


def test_each_use_of_the_placeholder_takes_its_vectors_places(sd1: Family) -> None:
    technique = make("textual_inversion", sd1, num_vectors=4).inject()
    tower = sd1.towers[0]
    try:
        ids = tower.ids("the <mira> and <mira>")
        size = tower.vocabulary_size
        own = list(range(size, size + 4))
        assert ids == [*tower.words("the"), *own, *tower.words("and"), *own]
        assert tower.tokenize(["<mira> " * 40]).shape == (1, tower.length)
    finally:
        technique.eject()


def test_a_prompt_without_the_placeholder_is_left_alone(base: Family) -> None:
    plain = prediction(base)
    technique = stir(make("textual_inversion", base), 1.0).inject()
    try:
        assert torch.equal(prediction(base), plain)
    finally:
        technique.eject()


def test_a_placeholder_that_is_taken_is_refused(sd1: Family) -> None:
    first = make("textual_inversion", sd1).inject()
    second = make("textual_inversion", sd1)
    try:
        with pytest.raises(UnsupportedError, match="<mira> is taken"):
            second.inject()
        assert not second.injected
        assert first.injected
    finally:
        first.eject()


def test_two_placeholders_of_which_one_begins_as_the_other_stay_apart(sd1: Family) -> None:
    short = stir(make("textual_inversion", sd1, placeholder="<mira"), 1.0, seed=1).inject()
    alone = sd1.encode_text(["a <mira"]).embeds
    long = stir(make("textual_inversion", sd1, placeholder="<mira_2>"), 1.0, seed=2).inject()
    try:
        assert torch.equal(sd1.encode_text(["a <mira"]).embeds, alone)
        assert sd1.towers[0].ids("<mira_2>") == list(range(521 + 8, 521 + 16))
    finally:
        short.eject()
        long.eject()


def test_letting_the_first_of_two_go_keeps_the_second(sd1: Family) -> None:
    first = stir(make("textual_inversion", sd1, placeholder="<a>", num_vectors=3), 1.0, 1).inject()
    second = stir(make("textual_inversion", sd1, placeholder="<b>", num_vectors=2), 1.0, 2).inject()
    before = sd1.encode_text(["the <b>"]).embeds
    first.eject()
    third = stir(make("textual_inversion", sd1, placeholder="<c>", num_vectors=4), 1.0, 3).inject()
    try:
        assert torch.equal(sd1.encode_text(["the <b>"]).embeds, before)
        assert not set(sd1.towers[0].ids("<b>")) & set(sd1.towers[0].ids("<c>"))
    finally:
        second.eject()
        third.eject()


def test_the_usual_norm_is_that_of_the_starting_words_where_most_words_are_untrained() -> None:
    vocabulary = torch.eye(8) * torch.tensor([2.0, 1.8, *[0.25] * 6])[:, None]
    assert usual_norm(vocabulary, vocabulary[:2]).item() == pytest.approx(1.8)
    assert usual_norm(vocabulary * 10, vocabulary[2:4]).item() == 2.5


def test_the_pull_moves_norms_towards_that_of_a_usual_word(sd1: Family) -> None:
    technique = make("textual_inversion", sd1, norm_pull=0.25)
    (vectors,) = technique.vectors
    median = usual_norm(sd1.towers[0].embedding.weight, technique.start_0)
    with torch.no_grad():
        vectors.mul_(torch.linspace(2, 40, len(vectors))[:, None])
    before, directions = vectors.norm(dim=1), torch.nn.functional.normalize(vectors)
    technique.after_step()
    torch.testing.assert_close(vectors.norm(dim=1), before + 0.25 * (median - before))
    torch.testing.assert_close(torch.nn.functional.normalize(vectors), directions)


def test_no_pull_leaves_the_vectors_alone(sd1: Family) -> None:
    technique = stir(make("textual_inversion", sd1, norm_pull=0.0), 1.0)
    before = technique.vectors[0].detach().clone()
    technique.after_step()
    torch.testing.assert_close(technique.vectors[0].detach(), before, rtol=1e-6, atol=1e-7)


def test_vectors_are_kept_in_full_precision(sd1: Family) -> None:
    technique = stir(make("textual_inversion", sd1))
    before = technique.vectors[0].detach().clone()
    technique.round_as_stored()
    assert torch.equal(technique.vectors[0], before)


def test_words_without_a_token_are_refused(sd1: Family) -> None:
    with pytest.raises(UnsupportedError, match="initializer_words is ' ', which has no token"):
        make("textual_inversion", sd1, initializer_words=" ")


def test_more_vectors_than_the_encoder_reads_are_refused(sd1: Family) -> None:
    with pytest.raises(UsageError, match=r"'num_vectors' is 76; .*less than or equal to 75"):
        make("textual_inversion", sd1, num_vectors=76)


def test_a_placeholder_that_is_a_word_of_the_base_is_refused(sd1: Family) -> None:
    technique = make("textual_inversion", sd1, placeholder="cat")
    with pytest.raises(UnsupportedError, match=r"'cat', a word that the base knows.*<cat>"):
        technique.inject()
    assert not technique.injected


def test_a_placeholder_is_not_found_inside_of_a_longer_word(sd1: Family) -> None:
    tower = sd1.towers[0]
    plain = tower.ids("admiraal miras")
    technique = stir(make("textual_inversion", sd1, placeholder="mira", num_vectors=2)).inject()
    try:
        assert tower.ids("admiraal miras") == plain
        new = tower.vocabulary_size
        assert [i for i in tower.ids("a mira, on the can") if i >= new] == [new, new + 1]
    finally:
        technique.eject()
