"""LoRA against peft's layers, its scale, its options and its refusals."""

from __future__ import annotations

import copy
import math
import re
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model

from personae.errors import UsageError
from personae.models.family import Family
from tiny_world import bases, make, noisy, prediction, stir

CONVOLUTION = "down_blocks.0.resnets.0.conv1"
ATTENTION = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
STRIDED = "down_blocks.0.downsamplers.0.conv"


def with_peft(base: Family, technique: Any, **settings: Any) -> Family:
    """Return `base` with a copy of its denoiser in which peft's layers hold our weights."""
    names = [name.removeprefix("denoiser.") for name in technique.layers]
    config = LoraConfig(target_modules=names, **settings)
    denoiser = inject_adapter_in_model(config, copy.deepcopy(base.denoiser)).eval()
    there = dict(denoiser.named_modules())
    with torch.no_grad():
        for name, update in technique.updates.items():
            layer = there[name.replace("/", ".").removeprefix("denoiser.")]
            layer.lora_A["default"].weight.copy_(update.down)
            layer.lora_B["default"].weight.copy_(update.up)
    other = copy.copy(base)
    other.denoiser = denoiser
    return other


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"rank": 4}, {"r": 4, "lora_alpha": 4}),
        ({"rank": 4, "alpha": 1.0}, {"r": 4, "lora_alpha": 1}),
        ({"rank": 4, "alpha": 8.0, "targets": "all"}, {"r": 4, "lora_alpha": 8}),
        (
            {"rank": 9, "alpha": 2.0, "rank_stabilised": True},
            {"r": 9, "lora_alpha": 2, "use_rslora": True},
        ),
    ],
    ids=["default", "alpha", "convolutions", "rank_stabilised"],
)
def test_the_output_equals_that_of_peft(base: Family, ours: dict, theirs: dict) -> None:
    technique = stir(make("lora", base, **ours))
    wanted = prediction(with_peft(base, technique, **theirs))
    plain = prediction(base)
    technique.inject()
    try:
        mine = prediction(base)
    finally:
        technique.eject()
    torch.testing.assert_close(mine, wanted, rtol=0, atol=1e-6)
    assert (mine - plain).abs().max() > 1e-3


def test_gradients_equal_those_of_peft(sd1: Family) -> None:
    technique = stir(make("lora", sd1, rank=4, alpha=2.0)).train()
    other = with_peft(sd1, technique, r=4, lora_alpha=2)
    latents, times = noisy(sd1)
    text = sd1.encode_text(["a cat", "the man"])
    other.denoise(latents, times, text).square().mean().backward()
    technique.inject()
    try:
        sd1.denoise(latents, times, text).square().mean().backward()
    finally:
        technique.eject()
    there = dict(other.denoiser.named_modules())
    for name, update in technique.updates.items():
        layer = there[name.replace("/", ".").removeprefix("denoiser.")]
        for mine, wanted in ((update.down, layer.lora_A), (update.up, layer.lora_B)):
            torch.testing.assert_close(
                mine.grad, wanted["default"].weight.grad, rtol=1e-4, atol=1e-7
            )


@pytest.mark.parametrize(
    ("settings", "scale"),
    [
        ({"rank": 8}, 1.0),
        ({"rank": 8, "alpha": 4.0}, 0.5),
        ({"rank": 4, "alpha": 4.0, "rank_stabilised": True}, 2.0),
        ({"rank": 8, "rank_stabilised": True}, math.sqrt(8)),
    ],
)
def test_the_scale_is_alpha_over_rank_or_its_root(
    sd1: Family, settings: dict, scale: float
) -> None:
    technique = stir(make("lora", sd1, layers=[f"denoiser.{ATTENTION}"], **settings))
    layer = sd1.denoiser.get_submodule(ATTENTION)
    update = next(iter(technique.updates.values()))
    x = torch.randn(3, 5, layer.in_features, generator=torch.Generator().manual_seed(0))
    plain = layer(x)
    technique.inject()
    try:
        adapted = layer(x)
    finally:
        technique.eject()
    wanted = plain + scale * (x @ update.down.T @ update.up.T)
    torch.testing.assert_close(adapted, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [CONVOLUTION, STRIDED])
def test_a_convolution_gets_an_update_of_its_own_kernel_and_stride(sd1: Family, name: str) -> None:
    technique = stir(make("lora", sd1, rank=4, layers=[f"denoiser.{name}"]))
    layer = sd1.denoiser.get_submodule(name)
    (update,) = technique.updates.values()
    merged = torch.einsum("or,rihw->oihw", update.up[:, :, 0, 0], update.down)
    x = torch.randn(2, layer.in_channels, 8, 8, generator=torch.Generator().manual_seed(0))
    technique.inject()
    try:
        adapted = layer(x)
    finally:
        technique.eject()
    wanted = torch.nn.functional.conv2d(
        x, layer.weight + merged, layer.bias, layer.stride, layer.padding
    )
    torch.testing.assert_close(adapted, wanted, rtol=1e-5, atol=1e-5)


def test_targets_choose_the_layers(base: Family) -> None:
    wanted = ("attention", "attention+feed_forward", "all", *base.targets.sets)
    layers = {name: set(make("lora", base, rank=4, targets=name).layers) for name in wanted}
    assert all(layers.values())
    assert layers["attention"] < layers["attention+feed_forward"] <= layers["all"]
    assert layers["attention+feed_forward"] == layers["attention"] | layers["feed_forward"]
    assert not make("lora", base, rank=4).trains_text


def test_cross_attention_is_the_least_and_convolutions_come_with_all(sd1: Family) -> None:
    layers = {
        targets: set(make("lora", sd1, rank=4, targets=targets).layers)
        for targets in ("cross_attention", "attention", "attention+feed_forward", "all")
    }
    sizes = [len(names) for names in layers.values()]
    assert sizes == sorted(set(sizes))
    assert layers["cross_attention"] < layers["attention"]
    assert layers["attention+feed_forward"] < layers["all"]


def test_a_target_that_the_base_lacks_is_refused_with_those_it_has(base: Family) -> None:
    with pytest.raises(UsageError, match=r"lora.targets names 'atention'; .*'attention'\?"):
        make("lora", base, rank=4, targets="feed_forward+atention")


def test_the_text_encoders_are_adapted_on_request(base: Family) -> None:
    technique = make("lora", base, rank=4, text_encoder=True)
    networks = {name.split(".")[0] for name in technique.layers}
    assert networks == set(base.networks)
    assert technique.trains_text
    plain = base.encode_text(["a cat"]).embeds
    stir(technique).inject()
    try:
        assert not torch.equal(base.encode_text(["a cat"]).embeds, plain)
    finally:
        technique.eject()
    assert torch.equal(base.encode_text(["a cat"]).embeds, plain)


def test_a_rank_beyond_the_narrowest_layer_is_refused(sd1: Family) -> None:
    make("lora", sd1, rank=16)
    with pytest.raises(UsageError, match=r"lora.rank is 17; it must be in \[1, 16\]"):
        make("lora", sd1, rank=17)


def test_a_rank_of_zero_is_refused(sd1: Family) -> None:
    with pytest.raises(UsageError, match=r"'rank' is 0; .*greater than or equal to 1"):
        make("lora", sd1, rank=0)


def test_a_named_layer_that_is_not_there_is_refused_with_the_nearest(sd1: Family) -> None:
    with pytest.raises(UsageError, match=f"Did you mean 'denoiser.{re.escape(ATTENTION)}'"):
        make("lora", sd1, layers=[f"denoiser.{ATTENTION}y"])
    with pytest.raises(UsageError, match="layers is empty"):
        make("lora", sd1, layers=[])


def test_lora_plus_gives_the_up_side_a_rate_of_its_own(sd1: Family) -> None:
    technique = make("lora", sd1, up_learning_rate_ratio=16.0)
    rates = {
        id(parameter): group["lr"]
        for group in technique.parameter_groups(1e-4, 0.0)
        for parameter in group["params"]
    }
    for update in technique.updates.values():
        assert rates[id(update.down)] == 1e-4
        assert rates[id(update.up)] == pytest.approx(16e-4)


def test_dropout_acts_in_training_alone(sd1: Family) -> None:
    technique = stir(make("lora", sd1, dropout=0.5)).inject()
    try:
        settled = prediction(sd1)
        assert torch.equal(prediction(sd1), settled)
        technique.train()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            first, second = prediction(sd1), prediction(sd1)
        assert not torch.equal(first, second)
    finally:
        technique.eject()


def test_parameters_stay_float32_beside_a_narrow_base() -> None:
    base = bases()["tiny-sd1"]
    technique = stir(make("lora", base))
    layer = copy.deepcopy(base.denoiser.get_submodule(ATTENTION)).to(torch.bfloat16)
    x = torch.randn(2, 3, layer.in_features).to(torch.bfloat16)
    update = technique.updates[f"denoiser.{ATTENTION}".replace(".", "/")]
    assert update(x).dtype == torch.bfloat16
    assert {p.dtype for p in technique.parameters()} == {torch.float32}
