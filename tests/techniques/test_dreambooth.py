"""DreamBooth: a delta over weights that are never written, fine enough for tiny updates."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from personae.artifacts.artifact import Artifact
from personae.core.devices import HOST, SHAPES_ONLY
from personae.errors import UnsupportedError
from personae.models.families.stable_diffusion import StableDiffusion
from personae.models.family import Family
from personae.models.overlay import _Sum
from personae.models.toys import tiny_stable_diffusion
from personae.techniques.technique import key_of
from personae.training.events import Finished, Validation
from personae.training.optim.optimizers import held_on, state_bytes
from tiny_world import (
    artifact_of,
    bare,
    bases,
    make,
    noisy,
    only,
    prediction,
    run,
    run_config,
    stir,
)

WEIGHT = "conv_in.weight"


def narrow_base() -> Family:
    pipe = tiny_stable_diffusion(1).to(torch.bfloat16)
    return StableDiffusion.from_pipeline(pipe, "narrow", HOST, torch.bfloat16)


def test_updates_of_a_millionth_add_up_on_bf16_weights() -> None:
    base = narrow_base()
    before, weight = prediction(base), base.denoiser.conv_in.weight
    technique = make("dreambooth", base).inject()
    delta = technique.deltas[f"denoiser.{WEIGHT}".replace(".", "/")]
    optimizer = torch.optim.SGD([delta], lr=1e-6)
    delta.grad = torch.ones_like(delta)
    stuck = weight.detach().clone()
    for _ in range(5000):
        optimizer.step()
        stuck -= 1e-6
    try:
        after = prediction(base)
    finally:
        technique.eject()
    torch.testing.assert_close(delta, torch.full_like(delta, -5e-3), rtol=1e-3, atol=0)
    assert not torch.equal(after, before)
    large = weight.abs() > 2**-3  # there bf16 has steps of a thousandth and sees no millionth
    assert large.any()
    assert torch.equal(stuck[large], weight[large])


def test_the_output_is_that_of_weights_with_the_delta_added(base: Family) -> None:
    technique = stir(make("dreambooth", base), 0.01)
    other = copy.copy(base)
    other.denoiser = copy.deepcopy(base.denoiser)
    with torch.no_grad():
        for name, weight in other.denoiser.named_parameters():
            weight += technique.deltas[f"denoiser.{name}".replace(".", "/")]
    wanted = prediction(other)
    technique.inject()
    try:
        assert torch.equal(prediction(base), wanted)
    finally:
        technique.eject()


def test_training_never_writes_the_weights_of_the_base(sd1: Family) -> None:
    parameters = dict(sd1.denoiser.named_parameters())
    values = {name: weight.detach().clone() for name, weight in parameters.items()}
    technique = make("dreambooth", sd1).train().inject()
    optimizer = torch.optim.AdamW(technique.parameters(), lr=1e-2)
    latents, times = noisy(sd1)
    for _ in range(2):
        text = sd1.encode_text(["a cat", "the man"])
        sd1.denoise(latents, times, text).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    technique.eject()
    for name, weight in sd1.denoiser.named_parameters():
        assert weight is parameters[name]
        assert torch.equal(weight, values[name])


def test_the_text_encoder_is_tuned_on_request(sd1: Family) -> None:
    technique = stir(make("dreambooth", sd1, text_encoder=True))
    assert technique.trains_text
    assert {name.split("/")[0] for name in technique.deltas} == {"denoiser", "text_encoder"}
    plain = sd1.encode_text(["a cat"]).embeds
    technique.inject()
    try:
        assert not torch.equal(sd1.encode_text(["a cat"]).embeds, plain)
    finally:
        technique.eject()
    assert torch.equal(sd1.encode_text(["a cat"]).embeds, plain)


def test_two_deltas_add_up_and_leave_one_by_one(sd1: Family) -> None:
    one, two = (stir(make("dreambooth", sd1), 0.01, seed) for seed in (1, 2))
    both = make("dreambooth", sd1)
    with torch.no_grad():
        for name, delta in both.deltas.items():
            delta.copy_(one.deltas[name] + two.deltas[name])
    drawn = []
    for made in ([both], [one, two], [two]):
        for technique in made:
            technique.inject()
        drawn.append(prediction(sd1))
        for technique in made:
            technique.eject()
    torch.testing.assert_close(drawn[0], drawn[1], rtol=0, atol=1e-5)
    assert not torch.equal(drawn[1], drawn[2])
    assert bare(sd1)


def test_a_change_of_strength_or_delta_is_seen_at_once(sd1: Family) -> None:
    technique = stir(make("dreambooth", sd1), 0.01).inject()
    try:
        whole = prediction(sd1)
        technique.strength = 0.25
        quarter = prediction(sd1)
        assert not torch.equal(quarter, whole)
        technique.strength = 1.0
        assert torch.equal(prediction(sd1), whole)
        stir(technique, 0.01, seed=9)
        assert not torch.equal(prediction(sd1), whole)
    finally:
        technique.eject()


def test_rows_of_unlike_strength_are_refused_in_words(sd1: Family) -> None:
    technique = make("dreambooth", sd1).inject()
    technique.strength = torch.tensor([0.0, 1.0])
    try:
        with pytest.raises(UnsupportedError, match="draw its pictures in a batch of their own"):
            prediction(sd1)
    finally:
        technique.eject()


def held_out_loss(precision: str, character: Path, base: Family, out: Path) -> float:
    """Return how much 12 steps change the held-out loss at a rate that bf16 weights cannot see."""
    config = run_config(
        character,
        technique="dreambooth",
        settings={"dreambooth": {"weight_precision": precision}},
        validate_every=12,
        schedule={"steps": 12, "learning_rate": 3e-5, "prior": "none"},
    )
    (last,) = only(run(config, out, base), Validation)
    return last.loss - last.base


@pytest.fixture(scope="module")
def learnt_in_float32(character: Path, tmp_path_factory: pytest.TempPathFactory) -> float:
    """Return what whole deltas learn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PERSONAE_ACCELERATION", "none")
        patch.setenv("PERSONAE_CACHE", str(tmp_path_factory.mktemp("cache")))
        base, out = bases()["tiny-sd1"], tmp_path_factory.mktemp("fp32") / "run"
        return held_out_loss("fp32", character, base, out)


@pytest.mark.parametrize("precision", ["bf16_stochastic", "bf16_kahan"])
def test_a_bf16_delta_takes_half_the_bytes_and_learns_what_float32_learns(
    precision: str, learnt_in_float32: float, character: Path, sd1: Family, tmp_path: Path
) -> None:
    assert learnt_in_float32 < 0
    learnt = held_out_loss(precision, character, sd1, tmp_path / "run")
    assert learnt == pytest.approx(learnt_in_float32, rel=0.1)
    narrow, wide = make("dreambooth", sd1, weight_precision=precision), make("dreambooth", sd1)
    assert 2 * sum(p.nbytes for p in narrow.parameters()) == sum(
        p.nbytes for p in wide.parameters()
    )


LEAN = {"schedule": {"optimizer": "adamw8bit", "update": "in_backward"}}
KAHAN = {"settings": {"dreambooth": {"weight_precision": "bf16_kahan"}}}


@pytest.mark.parametrize("mode", [{}, LEAN, KAHAN])
def test_offloaded_training_ends_in_the_same_bits_on_the_host(
    mode: dict[str, Any], character: Path, shallow: Family, tmp_path: Path
) -> None:
    files = []
    for offload in (False, True):
        own = {**mode.get("settings", {}).get("dreambooth", {}), "offload": offload}
        config = run_config(
            character,
            technique="dreambooth",
            settings={"dreambooth": own},
            schedule={"prior": "none", **mode.get("schedule", {})},
        )
        events = run(config, tmp_path / f"offload-{offload}", shallow)
        files.append(Artifact.load(only(events, Finished)[0].path).tensors)
    plain, apart = files
    assert any(value.abs().max() > 0 for value in plain.values())
    assert all(torch.equal(apart[name], value) for name, value in plain.items())


@pytest.mark.parametrize("precision", ["fp32", "bf16_kahan"])
def test_offloaded_deltas_and_all_that_comes_of_them_lie_on_the_host(
    precision: str, sd1: Family
) -> None:
    """Shown on a base whose weights are on another device, the one without values."""
    apart = copy.deepcopy(sd1.denoiser).to(SHAPES_ONLY)
    base = dataclasses.replace(sd1, denoiser=apart, device=SHAPES_ONLY, overlays={})
    made = make("dreambooth", base, offload=True, weight_precision=precision)
    weight = base.denoiser.conv_in.weight
    delta = made.deltas[key_of("denoiser.conv_in.weight")]
    assert (weight.device, delta.device) == (SHAPES_ONLY, HOST)
    merged = _Sum.apply(weight, delta)
    assert (merged.device, merged.dtype) == (SHAPES_ONLY, weight.dtype)
    with FakeTensorMode(allow_non_fake_inputs=True):
        _Sum.apply(weight, delta).sum().backward()
    assert (delta.grad.device, delta.grad.dtype) == (HOST, delta.dtype)
    beside = held_on(SHAPES_ONLY, made.parameter_groups(1e-3, 0.0))
    assert state_bytes("adamw", beside) == 0


def test_a_file_of_float16_deltas_draws_as_before(sd1: Family) -> None:
    """Deltas were stored so once; they are kept in their format and added in float32."""
    technique = stir(make("dreambooth", sd1), 0.01)
    made = artifact_of(technique, sd1)
    stored = {
        f"dreambooth.{name.replace('/', '.')}": value.detach().half()
        for name, value in technique.state_dict().items()
    }
    assert set(stored) == set(made.tensors)
    (old,) = Artifact(made.card, stored).build(sd1)
    assert {delta.dtype for delta in old.deltas.values()} == {torch.float16}
    with torch.no_grad():
        for delta in technique.parameters():
            delta.copy_(delta.half())
    predictions = []
    for each in (technique, old):
        each.inject()
        predictions.append(prediction(sd1))
        each.eject()
    assert torch.equal(*predictions)
