"""Hypernetworks: A1111's layers, the guard on their size, and where they act."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from personae.errors import UnsupportedError, UsageError
from personae.models.family import Family
from personae.models.load import load_base
from personae.models.toys import tiny_stable_diffusion
from personae.techniques.activations import ACTIVATIONS
from personae.techniques.hypernetwork import (
    HypernetworkConfig,
    build_network,
    initialise,
)
from personae.techniques.technique import Technique
from personae.training.memory.counter import peak_allocated
from tiny_world import make, noisy, prediction, stir

RELU = {"activation": "relu"}
NORMED = {"activation": "relu", "layer_norm": True}


def indices(network: nn.Sequential, kind: type) -> list[int]:
    return [i for i, layer in enumerate(network) if isinstance(layer, kind)]


@pytest.mark.parametrize(
    ("settings", "linear", "norm"),
    [
        ({"activation": "linear"}, [0, 1], []),
        (RELU, [0, 2], []),
        ({**RELU, "activate_output": True}, [0, 2], []),
        ({**NORMED, "dropout_structure": [0, 0.3, 0]}, [0, 4], [2, 5]),
        (
            {
                **NORMED,
                "layer_structure": [1, 2, 2, 1],
                "activate_output": True,
                "dropout_structure": [0, 0.3, 0.3, 0],
            },
            [0, 4, 8],
            [2, 6, 10],
        ),
    ],
    ids=["linear", "relu", "output", "norm_and_dropout", "deep"],
)
def test_layers_are_numbered_as_in_a1111(settings: dict, linear: list, norm: list) -> None:
    network = build_network(24, HypernetworkConfig.parse(settings))
    assert indices(network, nn.Linear) == linear
    assert indices(network, nn.LayerNorm) == norm


def test_a_norm_comes_after_the_activation_and_dropout_last() -> None:
    config = HypernetworkConfig.parse({**NORMED, "dropout_structure": [0, 0.3, 0]})
    kinds = [type(layer) for layer in build_network(24, config)]
    assert kinds == [nn.Linear, nn.ReLU, nn.LayerNorm, nn.Dropout, nn.Linear, nn.LayerNorm]


def test_a_bottleneck_has_the_widths_of_its_structure() -> None:
    config = HypernetworkConfig.parse({"layer_structure": [1, 0.25, 1]})
    shapes = [
        tuple(layer.weight.shape) for layer in build_network(24, config) if len(layer._parameters)
    ]
    assert shapes == [(6, 24), (24, 6)]


@pytest.mark.parametrize(
    ("structure", "wanted"),
    [
        ([1], "must start and end with 1"),
        ([2, 1], "must start and end with 1"),
        ([1, 2], "must start and end with 1"),
        ([1, 0, 1], "must hold positive numbers"),
        ([1, -1, 1], "must hold positive numbers"),
        ([1.0] * 33, "has 33 numbers; at most 32"),
    ],
)
def test_a_structure_that_does_not_end_in_one_is_refused(
    structure: list[float], wanted: str
) -> None:
    with pytest.raises(UsageError, match=wanted):
        HypernetworkConfig.parse({"layer_structure": structure})


def test_a_structure_too_thin_for_a_context_is_refused(sd1: Family) -> None:
    with pytest.raises(UnsupportedError, match=r"layer_structure.*0.01.*no channel"):
        make("hypernetwork", sd1, layer_structure=[1, 0.01, 1])


@pytest.mark.parametrize("structure", [[], [0.1, 0.1, 0], [0, 0.1, 0.1], [0, 1, 0], [0, -0.5, 0]])
def test_a_dropout_that_is_not_inner_is_refused(structure: list[float]) -> None:
    with pytest.raises(UsageError, match="0 first and last"):
        HypernetworkConfig.parse({"dropout_structure": structure})


def test_a_dropout_of_another_length_is_refused(sd1: Family) -> None:
    with pytest.raises(UnsupportedError, match="has 2 numbers; layer_structure has 3"):
        make("hypernetwork", sd1, dropout_structure=[0, 0])


def test_one_pair_of_networks_serves_each_context_width(sd1: Family) -> None:
    made = make("hypernetwork", sd1)
    assert set(made.networks) == {f"{d}/{part}" for d in (16, 24, 32, 48) for part in "kv"}
    cross_only = make("hypernetwork", sd1, self_attention=False)
    assert set(cross_only.networks) == {"24/k", "24/v"}
    hooked = {layer.in_features for _, layer in cross_only.layers}
    assert hooked == {24}


def test_keys_and_values_read_the_changed_context(sd1: Family) -> None:
    technique = stir(make("hypernetwork", sd1, activation="relu"))
    attention = sd1.denoiser.mid_block.attentions[0].transformer_blocks[0].attn2
    context = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(0))
    technique.strength = 0.5
    technique.inject()
    try:
        keys, values = attention.to_k(context), attention.to_v(context)
        queries = attention.to_q(torch.ones(1, 1, 48))
    finally:
        technique.eject()
    with torch.no_grad():
        for part, layer, got in (("k", attention.to_k, keys), ("v", attention.to_v, values)):
            first, _, last = technique.networks[f"24/{part}"]
            changed = context + 0.5 * last(torch.relu(first(context)))
            torch.testing.assert_close(got, layer(changed), rtol=1e-5, atol=1e-6)
    assert torch.equal(queries, attention.to_q(torch.ones(1, 1, 48)))


def calls(technique: Technique, base: Family, *, training: bool = False) -> int:
    """Return how often the text's network for keys computes in one pass of the denoiser."""
    seen: list[object] = []
    activation = technique.networks["24/k"][1]
    handle = activation.register_forward_hook(lambda *_: seen.append(None))
    technique.train(training).inject()
    try:
        with torch.set_grad_enabled(training):
            latents, times = noisy(base)
            base.denoise(latents, times, base.encode_text(["a cat", "the man"]))
    finally:
        technique.eject()
        handle.remove()
    return len(seen)


def test_the_text_is_changed_once_for_all_layers_that_read_it(sd1: Family) -> None:
    technique = stir(make("hypernetwork", sd1))
    assert calls(technique, sd1) == calls(technique, sd1, training=True) == 1


def test_layers_draw_dropout_of_their_own(sd1: Family) -> None:
    technique = stir(make("hypernetwork", sd1, dropout_structure=[0, 0.5, 0]))
    layers = sum(part == "k" and layer.in_features == 24 for part, layer in technique.layers)
    assert layers > 1
    assert calls(technique, sd1, training=True) == layers
    assert calls(technique, sd1) == 1


def test_a_text_changed_once_gives_the_gradients_of_one_changed_at_each_layer(
    sd1: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    technique = stir(make("hypernetwork", sd1)).train()
    latents, times = noisy(sd1)
    text = sd1.encode_text(["a cat", "the man"])

    def gradients() -> list[torch.Tensor]:
        technique.inject()
        try:
            loss = sd1.denoise(latents, times, text).square().mean()
            return list(torch.autograd.grad(loss, list(technique.parameters())))
        finally:
            technique.eject()

    once = gradients()
    monkeypatch.setattr(technique, "_begin", lambda *_: None)
    for ours, plain in zip(once, gradients(), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-6)


NOT_ZERO_AT_ZERO = {"sigmoid", "hardsigmoid", "logsigmoid", "softplus"}


@pytest.mark.parametrize("activation", sorted(set(ACTIVATIONS) - NOT_ZERO_AT_ZERO))
@pytest.mark.parametrize("layer_norm", [False, True])
def test_a_zero_last_layer_gives_exactly_nothing(activation: str, layer_norm: bool) -> None:
    config = HypernetworkConfig.parse(
        {"activation": activation, "layer_norm": layer_norm, "activate_output": True}
    )
    network = build_network(24, config)
    initialise(network, "zero_last", torch.Generator().manual_seed(0))
    x = torch.randn(3, 24, generator=torch.Generator().manual_seed(1))
    assert torch.equal(network(x), torch.zeros(3, 24))


def test_normal_initialisation_is_that_of_a1111() -> None:
    config = HypernetworkConfig.parse({"layer_structure": [1, 8, 1], "layer_norm": True})
    network = build_network(64, config)
    initialise(network, "normal", torch.Generator().manual_seed(0))
    for layer in network:
        if isinstance(layer, nn.Linear):
            assert layer.weight.std().item() == pytest.approx(0.01, rel=0.05)
            assert not layer.bias.any()
        elif isinstance(layer, nn.LayerNorm):
            assert layer.weight.abs().max() < 0.1  # LayerNorm weights as well, unlike torch's ones
            assert not layer.bias.any()


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("max_ratio", [0.1, 1.0])
def test_the_guard_keeps_the_change_below_its_share(
    sd1: Family, max_ratio: float, layer_norm: bool
) -> None:
    technique = make("hypernetwork", sd1, max_ratio=max_ratio, layer_norm=layer_norm)
    stir(technique, 0.8).train().inject()
    contexts = {name: torch.randn(4, 5, int(name.split("/")[0])) for name in technique.networks}

    def ratios() -> dict[str, float]:
        return {
            name: (technique._change(name, x).norm() / x.norm()).item()
            for name, x in contexts.items()
        }

    try:
        assert max(ratios().values()) > 1.2 * max_ratio
        technique.after_step()
        assert max(ratios().values()) <= max_ratio * 1.0001
    finally:
        technique.eject()


def test_a_pass_without_an_update_leaves_the_guard_alone(sd1: Family) -> None:
    technique = stir(make("hypernetwork", sd1, max_ratio=0.01), 0.3).train().inject()
    before = {name: value.clone() for name, value in technique.state_dict().items()}
    latents, times = noisy(sd1)
    sd1.denoise(latents, times, sd1.encode_text(["a cat", "the man"])).square().mean().backward()
    technique.discard_pass()
    technique.after_step()
    technique.eject()
    assert all(torch.equal(value, before[name]) for name, value in technique.state_dict().items())


def test_the_guard_forgets_what_was_only_looked_at(sd1: Family) -> None:
    """A validation pass between two steps must not change what the next step does."""
    kept = []
    for looks in (0, 1):
        technique = make("hypernetwork", sd1, max_ratio=0.01)
        stir(technique, 0.3).train().inject()
        latents, times = noisy(sd1)
        text = sd1.encode_text(["a cat", "the man"])
        for _ in range(looks):
            prediction(sd1, ["the other cat and a can"])
        sd1.denoise(latents, times, text).square().mean().backward()
        technique.after_step()
        technique.eject()
        kept.append({name: value.clone() for name, value in technique.state_dict().items()})
    assert all(torch.equal(kept[0][name], kept[1][name]) for name in kept[0])


def test_a_context_of_zeros_shrinks_nothing(sd1: Family) -> None:
    """As the empty prompt is on some bases; whatever a bias adds is beyond any share of nothing."""
    technique = stir(make("hypernetwork", sd1), 0.3).train().inject()
    before = {name: value.clone() for name, value in technique.state_dict().items()}
    try:
        assert technique._change("24/k", torch.zeros(1, 5, 24)).any()
        technique.after_step()
    finally:
        technique.eject()
    assert all(torch.equal(value, before[name]) for name, value in technique.state_dict().items())


@pytest.mark.parametrize(
    ("activation", "words"), [("relu", "never learn"), ("sigmoid", r"start 0\.5 off the base")]
)
def test_last_layers_of_zeros_that_could_not_learn_are_not_trained(
    sd1: Family, activation: str, words: str
) -> None:
    technique = make("hypernetwork", sd1, activation=activation, activate_output=True)
    with pytest.raises(UnsupportedError, match=f"'{activation}' makes last layers .*{words}"):
        technique.parameter_groups(1e-4, 0.0)
    assert make("hypernetwork", sd1, activation=activation).parameter_groups(1e-4, 0.0)
    assert stir(technique).parameter_groups(1e-4, 0.0)  # imported or trained: no zeros any more


def test_an_activation_with_a_slope_at_zero_may_end_a_network(sd1: Family) -> None:
    technique = make("hypernetwork", sd1, activation="tanh", activate_output=True)
    assert technique.parameter_groups(1e-4, 0.0)


def test_weights_made_narrow_once_a_pass_learn_as_those_made_anew_by_each_layer(
    tmp_path: Path,
) -> None:
    tiny_stable_diffusion(1).save_pretrained(tmp_path)
    base = load_base(str(tmp_path), device="cpu", precision="bf16")
    latents, times = noisy(base)
    text = base.encode_text(["a cat", "the man"])
    found, peaks = [], []
    for anew in (False, True):
        technique = stir(make("hypernetwork", base)).train().inject()
        if anew:
            forget = lambda *_: technique._casts.forget()  # noqa: B023, E731
            technique.attach(base.denoiser.register_forward_pre_hook(forget))
        pass_of = partial(base.denoise, latents, times, text)
        peaks.append(peak_allocated(pass_of))
        loss = pass_of().float().square().mean()
        found.append(torch.autograd.grad(loss, list(technique.parameters())))
        technique.eject()
        assert not technique._casts._kept
    for shared, own in zip(*found, strict=True):
        assert float((shared - own).norm()) <= 0.01 * float(own.norm())
    assert peaks[0] < peaks[1]
