"""Samplers that add noise keep the bits of rows, batches and recipes, as the others do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from personae.errors import UsageError
from personae.generation.cast import Cast
from personae.generation.generate import draw
from personae.generation.picture import Picture
from personae.generation.redraw import redraw
from personae.generation.sampler import Shot, sample, shots_of_prompts, streams_of_noise
from personae.generation.settings import Sampling
from personae.models.family import Family
from tiny_world import bases

EVERY = [(name, sampler) for name, base in bases().items() for sampler in base.samplers]
NOISY = ("euler_a", "dpm++2m_sde", "dpm++2m_sde_karras")
SHOTS = [Shot("the man", 1), Shot("a cat", 2), Shot("the man and the can", 2**64 - 1)]


def latents_of(base: Family, shots: list[Shot], sampling: Sampling) -> Tensor:
    painter = sample(base, shots, sampling, Cast())
    try:
        while True:
            next(painter)
    except StopIteration as stop:
        return stop.value


@pytest.mark.parametrize(("name", "sampler"), EVERY)
def test_a_row_has_the_same_bits_alone_and_in_a_batch(name: str, sampler: str) -> None:
    """Rows one at a time, since kernels of the network round by the size of a batch."""
    base, how = bases()[name], Sampling(sampler=sampler, steps=3, rows_at_once=1)
    torch.manual_seed(1)
    together = latents_of(base, SHOTS, how)
    before = torch.get_rng_state()
    for row, shot in enumerate(SHOTS):
        assert torch.equal(latents_of(base, [shot], how)[0], together[row])
    assert torch.equal(latents_of(base, SHOTS[::-1], how), together.flip(0))
    assert torch.equal(torch.get_rng_state(), before)  # of a program around it: untouched


@pytest.mark.parametrize("sampler", NOISY)
def test_a_recipe_draws_the_noise_of_a_stochastic_sampler_again(
    sd1: Family, tmp_path: Path, sampler: str
) -> None:
    drawn = draw(sd1, SHOTS, Sampling(sampler=sampler, steps=3))
    kept = Picture.open(drawn[1].save(tmp_path / "picture.png"))
    assert kept.recipe.sampling.sampler == sampler
    torch.manual_seed(99)
    assert redraw(sd1, kept.recipe, Cast()).image.tobytes() == drawn[1].image.tobytes()


@pytest.mark.parametrize("sampler", NOISY)
def test_the_noise_of_a_row_depends_on_its_seed_and_the_step_alone(
    sd1: Family, sampler: str
) -> None:
    scheduler = sd1.scheduler(sampler, 3, (4, 8, 8))

    def drawn(shots: list[Shot], step: int) -> list[Tensor]:
        streams = streams_of_noise(scheduler, shots, step)["generator"]
        return [torch.randn(8, generator=stream) for stream in streams]

    first, second = drawn([Shot("a", 1), Shot("b", 2)], 0)
    assert not torch.equal(first, second)
    assert torch.equal(drawn([Shot("c", 2)], 0)[0], second)
    assert not torch.equal(drawn([Shot("c", 2)], 1)[0], second)


@pytest.mark.parametrize("sampler", NOISY)
def test_a_stochastic_sampler_adds_noise_beyond_that_it_starts_from(
    sd1: Family, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = Sampling(sampler=sampler, steps=3)
    usual = latents_of(sd1, SHOTS[:1], how)
    monkeypatch.setattr(
        "personae.generation.sampler.generator_for",
        lambda seed, *stream: torch.Generator().manual_seed(seed + 1),
    )
    assert not torch.allclose(latents_of(sd1, SHOTS[:1], how), usual, atol=1e-2)


def test_pictures_of_a_prompt_have_seeds_in_a_row() -> None:
    shots = shots_of_prompts(["the sea", "the moon"], seed=7, number=2)
    assert shots == [
        Shot("the sea", 7),
        Shot("the sea", 8),
        Shot("the moon", 7),
        Shot("the moon", 8),
    ]
    with pytest.raises(UsageError, match="no prompt; say what to draw"):
        shots_of_prompts([])
