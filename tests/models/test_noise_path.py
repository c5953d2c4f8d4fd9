"""Noise paths against diffusers' own schedulers."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler

from personae.models.noise_path import Diffusion, Flow
from tiny_world import bases

SHAPE = (4, 8, 8)
TIMES = torch.tensor([0, 1, 250, 500, 998, 999])


def draw(seed: int) -> torch.Tensor:
    return torch.randn(len(TIMES), 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def ddpm(**settings: object) -> DDPMScheduler:
    return DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", **settings
    )


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_mixing_is_that_of_ddpm(prediction_type: str) -> None:
    scheduler = ddpm()
    path = Diffusion(scheduler.alphas_cumprod, prediction_type)
    assert torch.equal(
        path.mix(draw(0), draw(1), TIMES), scheduler.add_noise(draw(0), draw(1), TIMES)
    )


def test_the_target_is_the_noise_or_the_velocity_of_ddpm() -> None:
    scheduler = ddpm()
    eps = Diffusion(scheduler.alphas_cumprod, "epsilon")
    velocity = Diffusion(scheduler.alphas_cumprod, "v_prediction")
    assert torch.equal(eps.target(draw(0), draw(1), TIMES), draw(1))
    assert torch.equal(
        velocity.target(draw(0), draw(1), TIMES),
        scheduler.get_velocity(draw(0), draw(1), TIMES),
    )


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_mixes_as_the_flow_matching_scheduler(shift: float) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    places = torch.tensor([0, 10, 400, 700, 998, 999])
    times = scheduler.sigmas[places]
    mixed = Flow(shift).mix(draw(0), draw(1), times)
    wanted = scheduler.scale_noise(draw(0), scheduler.timesteps[places], draw(1))
    torch.testing.assert_close(mixed, wanted, rtol=0, atol=1e-6)
    assert torch.equal(Flow(shift).target(draw(0), draw(1), times), draw(1) - draw(0))


def test_flow_shifts_times_as_the_flow_matching_scheduler() -> None:
    plain = FlowMatchEulerDiscreteScheduler(shift=1.0).sigmas
    shifted = FlowMatchEulerDiscreteScheduler(shift=3.0).sigmas
    torch.testing.assert_close(Flow(3.0).shifted(plain, SHAPE), shifted)


def test_undoing_the_target_gives_the_clean_latent_back() -> None:
    """x0 = a x_t - s v, x0 = (x_t - s eps) / a, x0 = x_t - t u."""
    alphas = ddpm().alphas_cumprod
    times = TIMES[:4]
    clean, noise = draw(0)[:4], draw(1)[:4]
    for path, t in (
        (Diffusion(alphas, "epsilon"), times),
        (Diffusion(alphas, "v_prediction"), times),
        (Flow(), torch.tensor([0.1, 0.4, 0.7, 0.9])),
    ):
        mixed, target, (a, s) = (
            path.mix(clean, noise, t),
            path.target(clean, noise, t),
            path.levels(t),
        )
        undone = {
            "epsilon": (mixed - s * target) / a,
            "v_prediction": a * mixed - s * target,
            "flow": mixed - s * target,
        }[getattr(path, "prediction_type", "flow")]
        torch.testing.assert_close(undone, clean, rtol=1e-4, atol=1e-4)


def test_min_snr_weights_are_those_of_the_paper() -> None:
    alpha_bar = torch.tensor([0.99, 0.9, 0.5, 0.1])  # snr = 99, 9, 1, 1/9
    times = torch.arange(4)
    eps = Diffusion(alpha_bar, "epsilon").weight(times, 5.0)
    velocity = Diffusion(alpha_bar, "v_prediction").weight(times, 5.0)
    torch.testing.assert_close(eps, torch.tensor([5 / 99, 5 / 9, 1.0, 1.0]))
    torch.testing.assert_close(velocity, torch.tensor([5 / 100, 5 / 10, 1 / 2, (1 / 9) / (10 / 9)]))


def test_without_a_bound_every_time_weighs_the_same() -> None:
    for path in (Diffusion(ddpm().alphas_cumprod, "v_prediction"), Flow()):
        assert torch.equal(path.weight(path.spread(5, SHAPE), None), torch.ones(5))


def test_a_schedule_that_ends_in_pure_noise_has_finite_weights() -> None:
    scheduler = ddpm(rescale_betas_zero_snr=True)
    path = Diffusion(scheduler.alphas_cumprod, "v_prediction")
    weights = path.weight(torch.tensor([998, 999]), 5.0)
    assert torch.isfinite(weights).all()
    assert weights[1] < 1e-6


def test_times_are_drawn_from_the_generator_over_the_whole_range() -> None:
    diffusion, flow = Diffusion(ddpm().alphas_cumprod, "epsilon"), Flow(3.0)
    for path, low, high in ((diffusion, 0, 999), (flow, 0.0, 1.0)):
        first = path.sample(4000, torch.Generator().manual_seed(1), SHAPE)
        again = path.sample(4000, torch.Generator().manual_seed(1), SHAPE)
        assert torch.equal(first, again)
        assert low <= first.min() < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < first.max() <= high
    assert diffusion.sample(
        4000, torch.Generator().manual_seed(1), SHAPE
    ).float().mean() == pytest.approx(499.5, abs=20)
    # The logit-normal density is symmetric before the shift; its median 0.5 moves to 3 / 4.
    assert flow.sample(4000, torch.Generator().manual_seed(1), SHAPE).median() == pytest.approx(
        0.75, abs=0.02
    )


@pytest.mark.parametrize("source", list(bases()))
def test_the_fixed_times_of_validation_rise_from_little_noise_to_much(source: str) -> None:
    path = bases()[source].path
    times = path.spread(8, SHAPE)
    _, noise = path.levels(times)
    assert len(times) == 8
    assert (noise.flatten().diff() > 0).all()
    assert torch.equal(times, path.spread(8, SHAPE))
