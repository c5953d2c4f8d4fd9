"""Encoded prompts of unlike lengths, joined, cut and kept."""

from __future__ import annotations

import torch

from personae.models.text import Conditions, Text


def text(rows: int, length: int, *, seed: int = 0, **parts: object) -> Text:
    generator = torch.Generator().manual_seed(seed)
    return Text(torch.randn(rows, length, 3, generator=generator), **parts)


def test_texts_of_unlike_length_are_padded_and_come_out_as_they_went_in() -> None:
    short, long = text(2, 2), text(1, 5, seed=1)
    joined = Text.concatenate([short, long])
    assert joined.embeds.shape == (3, 5, 3)
    assert joined.lengths == (2, 2, 5)
    assert not joined.embeds[:2, 2:].any()
    assert all(map(torch.equal, joined.unpadded(), [*short.embeds, *long.embeds]))
    again = Text.concatenate([joined, text(1, 7, seed=2)])
    assert again.lengths == (2, 2, 5, 7)
    assert torch.equal(again.unpadded()[2], long.embeds[0])


def test_texts_of_one_length_are_joined_without_lengths() -> None:
    joined = Text.concatenate([text(1, 4), text(2, 4, seed=1)])
    assert joined.lengths is None
    assert joined.mask is None
    assert [row.shape for row in joined.unpadded()] == [(4, 3)] * 3


def test_a_mask_never_shows_what_padding_added() -> None:
    inside = torch.tensor([[True, False, True]])
    joined = Text.concatenate([text(1, 3, mask=inside), text(1, 4, seed=1), text(1, 2, seed=2)])
    assert joined.mask.tolist() == [
        [True, False, True, False],
        [True, True, True, True],
        [True, True, False, False],
    ]


def test_states_of_several_layers_are_padded_along_the_tokens_alone() -> None:
    one, other = Text(torch.ones(1, 2, 4, 3)), Text(torch.ones(1, 3, 4, 3))
    joined = Text.concatenate([one, other])
    assert joined.embeds.shape == (2, 3, 4, 3)
    assert not joined.embeds[0, 2].any()
    assert joined.embeds[0, :2].all()


def test_rows_are_chosen_with_all_that_belongs_to_them() -> None:
    pooled, mask = torch.arange(3.0)[:, None], torch.eye(3, dtype=torch.bool)
    whole = text(3, 3, pooled=pooled, mask=mask, lengths=(1, 2, 3))
    for rows, lengths in ((slice(1, 3), (2, 3)), ([2, 0, 2], (3, 1, 3))):
        some = whole[rows]
        assert some.lengths == lengths
        assert torch.equal(some.embeds, whole.embeds[rows])
        assert torch.equal(some.pooled, pooled[rows])
        assert torch.equal(some.mask, mask[rows])


def test_it_is_the_same_after_being_kept_as_tensors() -> None:
    for kept in (
        text(2, 3),
        text(2, 3, lengths=(1, 3), pooled=torch.ones(2, 5), mask=torch.ones(2, 3) > 0),
    ):
        again = Text.from_tensors(kept.tensors())
        assert again.lengths == kept.lengths
        assert torch.equal(again.embeds, kept.embeds)
        for one, other in ((again.pooled, kept.pooled), (again.mask, kept.mask)):
            assert (one is None) == (other is None)
            assert one is None or torch.equal(one, other)


def test_conditions_are_chosen_by_rows() -> None:
    sizes = Conditions({"sizes": torch.arange(6).reshape(3, 2)})
    assert sizes[1:].values["sizes"].tolist() == [[2, 3], [4, 5]]
