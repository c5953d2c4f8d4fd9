"""Linear layers kept in 8 or 4 bits: smaller, nearly the same, and refused where they cannot serve.

`make test` installs torchao for this file alone: other commands start slower where it is there.
"""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

pytest.importorskip("torchao")

from personae.core.devices import HOST
from personae.errors import UnsupportedError, UsageError
from personae.generation.cast import Cast, Member
from personae.generation.generate import draw
from personae.generation.redraw import redraw
from personae.generation.sampler import Shot
from personae.generation.settings import Sampling
from personae.models.family import Family
from personae.models.load import load_base
from personae.models.weights.files import weight_bytes
from personae.models.weights.quantised import QUANTISED, is_quantised, quantise
from personae.training.events import Finished, Planned, Step
from personae.training.memory.counter import peak_allocated
from tiny_world import artifact_of, make, only, prediction, run, run_config, stir, techniques

SIZES = {"int8": 8, "nf4": 4}
CHANGING = {"dreambooth"}  # techniques that lay something over the base's own weights
WORST = {"int8": 0.03, "nf4": 0.15}  # of the largest prediction; bf16 alone rounds by 0.004


@pytest.fixture(params=list(QUANTISED))
def quantised_base(request: pytest.FixtureRequest, shallow: Family) -> Family:
    base = copy.deepcopy(shallow)
    quantise(base.denoiser, request.param)
    base.quantised = request.param
    return base


def linear_weights(network: nn.Module) -> list[torch.Tensor]:
    return [layer.weight for layer in network.modules() if isinstance(layer, nn.Linear)]


def test_every_linear_layer_takes_as_many_bits_as_its_format(quantised_base: Family) -> None:
    weights = linear_weights(quantised_base.denoiser)
    assert all(map(is_quantised, weights))
    for layer in quantised_base.denoiser.modules():
        if isinstance(layer, nn.Linear):
            bits = 8 * weight_bytes(layer) - 32 * (0 if layer.bias is None else len(layer.bias))
            scales = 32 * (layer.out_features + 64)
            ours = SIZES[quantised_base.quantised] * layer.weight.numel()
            assert ours <= bits <= ours + scales + layer.weight.numel()


def test_other_layers_and_networks_stay_whole(quantised_base: Family, shallow: Family) -> None:
    convolutions = [
        each for each in quantised_base.denoiser.modules() if isinstance(each, nn.Conv2d)
    ]
    assert convolutions
    assert not any(is_quantised(each.weight) for each in convolutions)
    assert not any(map(is_quantised, quantised_base.towers[0].encoder.parameters()))


def test_predictions_are_nearly_those_of_the_whole_base(
    quantised_base: Family, shallow: Family
) -> None:
    whole = prediction(shallow)
    difference = (prediction(quantised_base) - whole).abs().max() / whole.abs().max()
    assert 0 < difference < WORST[quantised_base.quantised]


@pytest.mark.parametrize("name", list(QUANTISED))
def test_no_whole_weight_is_kept_for_the_backward_pass(name: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # of 16 layers drawn otherwise, one in many is further from the whole
        layers = nn.Sequential(*(nn.Linear(256, 256, bias=False) for _ in range(16)))
        x = torch.randn(2, 256, requires_grad=True)
    layers.requires_grad_(False)
    (whole,) = torch.autograd.grad(layers(x).square().sum(), x)
    quantise(layers, name)

    def passes() -> None:
        (gradient,) = torch.autograd.grad(layers(x).square().sum(), x)
        assert (gradient - whole).norm() < 4 * WORST[name] * whole.norm()

    one_weight = 4 * 256 * 256
    assert peak_allocated(passes) < 6 * one_weight  # torchao turns NormalFloat back in some steps


@pytest.mark.parametrize("technique", techniques())
def test_a_technique_learns_on_it_or_is_refused_because_it_changes_weights(
    technique: str, quantised_base: Family, character: Path, tmp_path: Path
) -> None:
    config = run_config(character, technique=technique, memory="8GiB")
    if technique in CHANGING:
        with pytest.raises(UnsupportedError, match=r"in 8 or 4 bits.*use --precision bf16 or fp32"):
            run(config, tmp_path / "run", quantised_base)
        return
    events = run(config, tmp_path / "run", quantised_base)
    assert isinstance(events[-1], Finished)
    assert len(only(events, Step)) == 4
    assert only(events, Planned)
    assert all(map(is_quantised, linear_weights(quantised_base.denoiser)))


def test_an_unknown_format_is_refused_with_all_there_are() -> None:
    with pytest.raises(UsageError, match="'int9'; it must be auto, fp32, bf16, fp16, int8, nf4"):
        load_base("toon", device=str(HOST), precision="int9")


def test_a_picture_names_its_format_and_is_drawn_again_by_it(quantised_base: Family) -> None:
    made = stir(make("lora", quantised_base))
    cast = Cast({"mira": Member(artifact_of(made, quantised_base))})
    sampling = Sampling(steps=2, width=64, height=64)
    with cast.on(quantised_base):
        picture = draw(quantised_base, [Shot("{mira} on the can")], sampling, cast)[0]
        assert picture.recipe.precision == quantised_base.quantised
        again = redraw(quantised_base, picture.recipe, cast)
    assert again.image.tobytes() == picture.image.tobytes()


@pytest.mark.parametrize("name", list(QUANTISED))
def test_the_embedded_base_loads_in_it(name: str) -> None:
    base = load_base("toon", device=str(HOST), precision=name)
    whole = load_base("toon", device=str(HOST))
    assert base.fingerprint == whole.fingerprint
    assert weight_bytes(base.denoiser) < weight_bytes(whole.denoiser)
    assert base.dtype is whole.dtype
