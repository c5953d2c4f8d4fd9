"""The contract that every technique keeps on every family; a new plug-in is tested by existing."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from functools import cache, partial

import pytest
import torch

from personae.artifacts.artifact import Artifact
from personae.core.registry import lookup
from personae.core.seeds import generator_for
from personae.errors import UnsupportedError
from personae.models.families.stable_diffusion import StableDiffusion
from personae.models.family import Family
from personae.models.targets import TargetSets
from personae.techniques.technique import Technique
from tiny_world import (
    PROMPTS,
    artifact_of,
    bare,
    bases,
    make,
    noisy,
    phrase,
    prediction,
    stir,
    techniques,
    weights,
)

LITTLE = 4096  # numbers, less than a picture takes
ROW_TOLERANCE = 2e-6  # a batched product may sum in another order than a single one


def refusal_of(attempt: Callable[[], object]) -> str | None:
    """Return the words in which an attempt is refused as unsupported, or None if it is not."""
    try:
        attempt()
    except UnsupportedError as error:
        return str(error)
    return None


def supported(name: str, base: Family) -> bool:
    return refusal_of(partial(make, name, base)) is None


BASES = list(bases())
CASES = [(t, b) for b in BASES for t in techniques() if supported(t, bases()[b])]
PAIRS = [
    (first, second, b)
    for b in BASES
    for first, second in itertools.combinations(techniques(), 2)
    if (first, b) in CASES and (second, b) in CASES
]
each_case = pytest.mark.parametrize(("name", "base"), CASES, indirect=["base"])
each_pair = pytest.mark.parametrize(("first", "second", "base"), PAIRS, indirect=["base"])


def prompts_with(*made: Technique) -> list[str]:
    named = " and ".join(phrase(technique) for technique in made)
    return [f"a can of {named}", "the man"]


def frozen_loss(base: Family, prompts: list[str]) -> torch.Tensor:
    """Return the loss for fixed pictures, noise and times, a scalar."""
    clean, times = noisy(base, len(prompts), seed=1)
    noise, _ = noisy(base, len(prompts), seed=2)
    answer = base.denoise(base.path.mix(clean, noise, times), times, base.encode_text(prompts))
    return (answer.float() - base.path.target(clean, noise, times)).square().mean()


@each_case
def test_output_is_bitwise_the_base_before_training(name: str, base: Family) -> None:
    technique = make(name, base)
    without = prediction(base)
    technique.inject()
    prompts = prompts_with(technique)
    try:
        assert torch.equal(prediction(base), without)
        as_trained = prediction(base, prompts)
        technique.strength = 0.0
        assert torch.equal(prediction(base, prompts), as_trained)
    finally:
        technique.eject()
    if not technique.names_character:
        assert torch.equal(prediction(base, prompts), as_trained)


@each_case
def test_only_the_parameters_of_the_technique_get_gradients(name: str, base: Family) -> None:
    technique = stir(make(name, base)).train().inject()
    try:
        frozen_loss(base, prompts_with(technique)).backward()
    finally:
        technique.eject()
    moved = [p for p in technique.parameters() if p.grad is not None and p.grad.any()]
    assert len(moved) > 0.7 * len(list(technique.parameters()))
    assert all(p.grad is None for network in base.networks.values() for p in network.parameters())
    assert base.autoencoder is not None
    assert all(p.grad is None for p in base.autoencoder.parameters())


@each_case
def test_what_was_learnt_is_found_again_by_the_names_of_its_technique(
    name: str, base: Family
) -> None:
    technique = stir(make(name, base))
    tensors = artifact_of(technique, base).tensors
    learnt = technique.learnt_in(tensors)
    assert len(learnt) == len(list(technique.parameters()))
    for path, value in learnt.items():
        assert tensors[technique.tensor_name(*path.split("."))] is value
    assert not technique.learnt_in({f"other{each}": value for each, value in tensors.items()})


@each_case
def test_the_loss_falls_in_fifteen_steps(name: str, base: Family) -> None:
    technique = make(name, base).train().inject()
    prompts = prompts_with(technique)
    rate = 20 * technique.recommended.learning_rate
    optimizer = torch.optim.AdamW(technique.parameter_groups(rate, 0.0))
    try:
        before = frozen_loss(base, prompts).item()
        for _ in range(15):
            optimizer.zero_grad()
            frozen_loss(base, prompts).backward()
            optimizer.step()
            technique.after_step()
        after = frozen_loss(base, prompts).item()
    finally:
        technique.eject()
    assert after < before * 0.9995


@each_case
def test_strength_zero_is_bitwise_the_base(name: str, base: Family) -> None:
    technique = make(name, base).inject()
    prompts = prompts_with(technique)
    untrained = prediction(base, prompts)
    try:
        stir(technique)
        assert not torch.equal(prediction(base, prompts), untrained)
        technique.strength = 0.0
        assert torch.equal(prediction(base, prompts), untrained)
        technique.strength = torch.zeros(len(prompts))
        if technique.per_row and not technique.trains_text:
            assert torch.equal(prediction(base, prompts), untrained)
    finally:
        technique.eject()


@each_case
def test_half_strength_lies_between_the_base_and_full_strength(name: str, base: Family) -> None:
    technique = stir(make(name, base)).inject()
    prompts = prompts_with(technique)
    try:
        drawn = {}
        for technique.strength in (0.0, 0.5, 1.0):
            drawn[technique.strength] = prediction(base, prompts)
    finally:
        technique.eject()
    whole = (drawn[1.0] - drawn[0.0]).norm()
    assert 0 < (drawn[0.5] - drawn[0.0]).norm() < whole
    assert 0 < (drawn[1.0] - drawn[0.5]).norm() < whole


@each_case
def test_eject_restores_the_base_bitwise(name: str, base: Family) -> None:
    before, output = weights(base), prediction(base)
    objects = [p for network in base.networks.values() for p in network.parameters()]
    technique = stir(make(name, base)).inject()
    assert technique.injected
    prediction(base, prompts_with(technique))
    technique.eject()
    assert not technique.injected
    assert bare(base)
    after = [p for network in base.networks.values() for p in network.parameters()]
    assert all(mine is theirs for mine, theirs in zip(objects, after, strict=True))
    assert all(torch.equal(value, before[key]) for key, value in weights(base).items())
    assert torch.equal(prediction(base), output)


@each_case
def test_names_in_the_state_of_the_base_never_change(name: str, base: Family) -> None:
    before = list(weights(base))
    technique = make(name, base).inject()
    try:
        assert list(weights(base)) == before
        prediction(base)
        assert list(weights(base)) == before
        frozen_loss(base, prompts_with(technique)).backward()
        assert list(weights(base)) == before
    finally:
        technique.eject()
    assert list(weights(base)) == before


@each_case
def test_a_saved_and_loaded_technique_draws_the_same_bits(
    name: str, base: Family, tmp_path
) -> None:
    technique = stir(make(name, base)).inject()
    technique.round_as_stored()
    prompts = prompts_with(technique)
    mine = prediction(base, prompts)
    path = artifact_of(technique, base).save(tmp_path / "mira.safetensors")
    technique.eject()
    (loaded,) = Artifact.load(path).build(base)
    loaded.inject()
    try:
        assert torch.equal(prediction(base, prompts), mine)
    finally:
        loaded.eject()
    assert not torch.equal(prediction(base, prompts), mine)


@each_case
def test_a_technique_is_built_alike_from_the_same_seed(name: str, base: Family) -> None:
    one, two = make(name, base, seed=5).state_dict(), make(name, base, seed=5).state_dict()
    assert list(one) == list(two)
    assert all(torch.equal(one[key], two[key]) for key in one)


@each_pair
def test_two_techniques_stack_and_leave_in_either_order(
    first: str, second: str, base: Family
) -> None:
    output = prediction(base)
    made = [stir(make(first, base), seed=1), stir(make(second, base), seed=2)]
    prompts = prompts_with(*made)
    for leaving in itertools.permutations(range(2)):
        alone = []
        for technique in made:
            technique.inject()
            alone.append(prediction(base, prompts))
        assert not torch.equal(alone[0], alone[1])
        made[leaving[0]].eject()
        assert not torch.equal(prediction(base, prompts), alone[1])
        made[leaving[1]].eject()
        assert bare(base)
        assert torch.equal(prediction(base), output)


@each_pair
def test_order_of_attachment_leaves_each_one_trained(first: str, second: str, base: Family) -> None:
    made = [make(first, base).train(), make(second, base).train()]
    for technique in reversed(made):
        stir(technique, 0.01).inject()
    try:
        frozen_loss(base, prompts_with(*made)).backward()
    finally:
        for technique in made:
            technique.eject()
    for technique in made:
        assert any(p.grad is not None and p.grad.any() for p in technique.parameters())


@pytest.mark.parametrize("source", BASES)
def test_every_order_of_leaving_restores_the_base(source: str) -> None:
    base = bases()[source]
    names = [name for name, where in CASES if where == source]
    output, before = prediction(base), weights(base)
    made = [stir(make(name, base)) for name in names]
    for order in itertools.permutations(range(len(names))):
        for technique in made:
            technique.inject()
        prediction(base)
        for place in order:
            made[place].eject()
        assert bare(base)
        assert torch.equal(prediction(base), output)
    assert all(torch.equal(value, before[key]) for key, value in weights(base).items())


@each_case
def test_two_of_one_kind_stack_unless_refused_in_words(name: str, base: Family) -> None:
    output = prediction(base)
    one = stir(make(name, base), seed=1).inject()
    two = stir(make(name, base), seed=2)
    try:
        alone = prediction(base, prompts_with(one))
        refusal = refusal_of(two.inject)
        if refusal is not None:
            assert phrase(two) in refusal
            assert "\n" not in refusal
        else:
            assert not torch.equal(prediction(base, prompts_with(one)), alone)
            two.eject()
        assert torch.equal(prediction(base, prompts_with(one)), alone)
    finally:
        one.eject()
    assert torch.equal(prediction(base), output)


@each_case
def test_built_without_starting_values_it_holds_what_another_learnt(
    name: str, base: Family
) -> None:
    learnt = stir(make(name, base))
    learnt.round_as_stored()
    values = {key: value.to(learnt.stored_dtype) for key, value in learnt.state_dict().items()}
    held = type(learnt)(learnt.config, base, None).requires_grad_(False).eval()
    assert sum(p.numel() for p in held.parameters() if not p.is_meta) <= LITTLE
    held.hold(values)
    predictions = []
    for technique in (learnt, held):
        technique.inject()
        predictions.append(prediction(base, prompts_with(learnt)))
        technique.eject()
    assert torch.equal(*predictions)
    assert not any(p.requires_grad for p in held.parameters())


@each_case
def test_gradient_checkpointing_gives_the_same_gradients(name: str, base: Family) -> None:
    technique = stir(make(name, base)).train().inject()
    prompts = prompts_with(technique)
    gradients = []
    try:
        for switch in ("disable", "enable"):
            getattr(base.denoiser, f"{switch}_gradient_checkpointing")()
            base.denoiser.train(switch == "enable")
            technique.zero_grad()
            frozen_loss(base, prompts).backward()
            gradients.append([p.grad for p in technique.parameters()])
    finally:
        base.denoiser.disable_gradient_checkpointing()
        base.denoiser.eval()
        technique.eject()
    for plain, recomputed in zip(*gradients, strict=True):
        assert (plain is None) == (recomputed is None)
        if plain is not None:
            torch.testing.assert_close(plain, recomputed, rtol=1e-4, atol=1e-6)


@each_case
def test_row_strengths_equal_separate_batches(name: str, base: Family) -> None:
    technique = stir(make(name, base)).inject()
    if not technique.per_row or technique.trains_text:
        technique.strength = torch.tensor([0.0, 1.0])
        try:
            with pytest.raises(UnsupportedError, match=f"{name}.*(batch|one by one)"):
                prediction(base, prompts_with(technique))
        finally:
            technique.strength = 1.0
            technique.eject()
        return
    prompts, strengths = [*prompts_with(technique), PROMPTS[0]], [0.0, 0.3, 1.0]
    latents, times = noisy(base, 3)
    try:
        with torch.no_grad():
            text = base.encode_text(prompts)
            technique.strength = torch.tensor(strengths)
            together = base.denoise(latents, times, text)
            for row, technique.strength in enumerate(strengths):
                one = slice(row, row + 1)
                alone = base.denoise(latents[one], times[one], text[one])
                torch.testing.assert_close(together[one], alone, rtol=0, atol=ROW_TOLERANCE)
    finally:
        technique.eject()


@cache
def without_memory(source: str) -> Family:
    """Return a copy of a tiny base whose networks have shapes alone."""
    other = copy.copy(bases()[source])
    other.overlays, other.device = {}, torch.device("meta")
    other.denoiser = copy.deepcopy(other.denoiser).to(other.device)
    other.towers = [
        tower.with_encoder(copy.deepcopy(tower.encoder).to(other.device)) for tower in other.towers
    ]
    return other


@each_case
def test_shapes_hold_on_the_meta_device(name: str, base: Family) -> None:
    """Build, inject and denoise without any memory: nothing relies on a device of its own."""
    other, meta = without_memory(base.source), torch.device("meta")
    kind = lookup(Technique, name)
    config = kind.settings_for(kind.Config(), "mira", "cat")
    technique = kind(config, other, generator_for(0)).to(meta).inject()
    assert {p.device.type for p in technique.parameters()} == {"meta"}
    latents, times = noisy(other)
    for strength in (0.5, 1.0):
        technique.strength = strength
        text = other.encode_text(prompts_with(technique))
        answer = other.denoise(latents.to(meta), times.to(meta), text)
        assert answer.device.type == "meta"
        assert answer.shape == latents.shape
    technique.eject()


@each_case
def test_a_technique_says_how_it_is_best_trained(name: str, base: Family) -> None:
    technique = make(name, base)
    assert technique.source.startswith("https://")
    assert technique.recommended.min_steps <= technique.recommended.max_steps
    groups = technique.parameter_groups(0.1, 0.01)
    trained = [id(p) for group in groups for p in group["params"]]
    assert sorted(trained) == sorted(id(p) for p in technique.parameters())
    assert technique.parameter_count == sum(math.prod(p.shape) for p in technique.parameters())


class OneStream(StableDiffusion):
    """A base no layer of which reads the text alone, as transformers with one stream are."""

    name = "one_stream"
    targets = TargetSets(sets=StableDiffusion.targets.sets)


@pytest.mark.parametrize("name", techniques())
def test_leaner_settings_are_settings_of_the_technique_and_no_defaults(name: str) -> None:
    kind = lookup(Technique, name)
    for each in kind.leaner:
        leaner = kind.Config.parse({each.setting: each.value})
        assert getattr(leaner, each.setting) == each.value
        assert getattr(kind.Config(), each.setting) != each.value
        assert each.reason


def test_an_unsupported_pair_refuses_in_words_and_names_a_way_out() -> None:
    base = OneStream.tiny()[0]
    words = {name: refusal_of(partial(make, name, base)) for name in techniques()}
    refused = [name for name, refusal in words.items() if refusal]
    assert refused == ["hypernetwork"]
    assert "one_stream has none" in words["hypernetwork"]
    assert "use lora" in words["hypernetwork"]
    assert "\n" not in words["hypernetwork"]


def test_fused_projections_are_refused_since_hooks_would_be_skipped() -> None:
    base = StableDiffusion.tiny()[0]
    base.denoiser.fuse_qkv_projections()
    with pytest.raises(UnsupportedError, match="unfuse_qkv_projections"):
        make("lora", base)
