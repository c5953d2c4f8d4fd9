"""Every sampler of every family: where it ends, how it is spaced, and what does not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from personae.errors import UsageError
from personae.generation.sampler import Shot, streams_of_noise
from personae.models.family import Family
from personae.models.flow_family import FlowFamily
from personae.models.samplers import DIFFUSION_SAMPLERS
from tiny_world import bases

DIFFUSION = [name for name, base in bases().items() if not isinstance(base, FlowFamily)]
FLOW = [name for name in bases() if name not in DIFFUSION]
KARRAS = [name for name in DIFFUSION_SAMPLERS if name.endswith("_karras")]


def levels(base: Family, scheduler: Any, step: int) -> tuple[Tensor, Tensor]:
    """Return how much of picture and noise the network's input holds at `step`."""
    if not hasattr(scheduler, "sigmas"):
        return base.path.levels(scheduler.timesteps[step : step + 1])
    sigma = scheduler.sigmas[step]
    return 1 / (1 + sigma**2).sqrt(), sigma / (1 + sigma**2).sqrt()


def told_the_way(base: Family, sampler: str, steps: int, picture: Tensor) -> Tensor:
    """Return where a sampler ends that hears the true way to `picture` at every step."""
    scheduler = base.scheduler(sampler, steps, picture.shape)
    noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(4))
    latents = noise[None] * scheduler.init_noise_sigma
    for step, t in enumerate(scheduler.timesteps):
        a, s = levels(base, scheduler, step)
        noise = (scheduler.scale_model_input(latents, t) - a * picture) / s
        velocity = a * noise - s * picture
        prediction = noise if base.path.prediction_type == "epsilon" else velocity
        streams = streams_of_noise(scheduler, [Shot("", 5)], step)
        latents = scheduler.step(prediction, t, latents, return_dict=False, **streams)[0]
    kept = last_alpha(scheduler, steps)
    return ((latents - (1 - kept).sqrt() * noise) / kept.sqrt())[0]


def last_alpha(scheduler: Any, steps: int) -> Tensor:
    """Return alpha_bar of where a sampler ends: 1 but for DDIM, which may leave some noise."""
    if not hasattr(scheduler, "final_alpha_cumprod"):
        return torch.tensor(1.0)
    last = int(scheduler.timesteps[-1]) - len(scheduler.alphas_cumprod) // steps
    return scheduler.alphas_cumprod[last] if last >= 0 else scheduler.final_alpha_cumprod


@pytest.mark.parametrize("sampler", list(DIFFUSION_SAMPLERS))
@pytest.mark.parametrize("name", DIFFUSION)
def test_every_sampler_ends_at_a_picture_whose_direction_is_known(name: str, sampler: str) -> None:
    """Whatever noise it adds on the way."""
    picture = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(3))
    ended = told_the_way(bases()[name], sampler, 6, picture)
    torch.testing.assert_close(ended, picture, rtol=0, atol=5e-3)


@pytest.mark.parametrize("sampler", KARRAS)
def test_karras_spacing_is_even_in_the_seventh_root_of_sigma(sampler: str) -> None:
    base = bases()[DIFFUSION[0]]
    plain = base.scheduler(sampler.removesuffix("_karras"), 9, (4, 8, 8)).sigmas
    spaced = base.scheduler(sampler, 9, (4, 8, 8)).sigmas[:9]
    gaps = spaced.double().pow(1 / 7).diff()
    torch.testing.assert_close(gaps, gaps.mean().expand(8), rtol=1e-3, atol=0)
    assert not torch.allclose(spaced, plain[:9])


@pytest.mark.parametrize("sampler", ["dpm++2m", "unipc"])
def test_no_step_is_lost_where_the_first_times_round_to_one(sampler: str) -> None:
    base = bases()["tiny-z-image"]  # its shift leaves little between the first times
    picture, noise = torch.randn(2, 4, 2, 2, generator=torch.Generator().manual_seed(3))
    scheduler = base.scheduler(sampler, 900, (4, 64, 64))
    assert scheduler.timesteps[0] == scheduler.timesteps[1]
    latents = noise[None]
    for step, t in enumerate(scheduler.timesteps):
        velocity = (latents - picture) / scheduler.sigmas[step]
        latents = scheduler.step(velocity, t, latents, return_dict=False)[0]
    torch.testing.assert_close(latents[0], picture, rtol=0, atol=5e-3)


@pytest.mark.parametrize("name", FLOW)
@pytest.mark.parametrize("sampler", sorted({*DIFFUSION_SAMPLERS} - {*FlowFamily.samplers}))
def test_a_sampler_that_does_not_fit_a_flow_is_refused_with_those_that_do(
    name: str, sampler: str
) -> None:
    with pytest.raises(UsageError) as caught:
        bases()[name].scheduler(sampler, 4, (4, 8, 8))
    said = str(caught.value)
    assert "\n" not in said
    assert f"sampler is '{sampler}'" in said
    assert ", ".join(FlowFamily.samplers) in said
