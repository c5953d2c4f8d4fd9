"""The contract that every acceleration keeps on every family; a new plug-in is tested by being."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from personae.core.registry import discover
from personae.models.acceleration import recomputed, unfolded
from personae.models.acceleration.acceleration import Acceleration
from personae.models.acceleration.ways import matmul_attention
from personae.models.family import Family
from personae.training.activation_checkpoint import Recomputing
from personae.training.memory.counter import peak_allocated
from personae.training.schedule import Extent
from tiny_world import PROMPTS, bases, make, noisy, phrase, prediction, stir, weights

KINDS = discover(Acceleration)
CASES = [(name, b) for name, kind in KINDS.items() for b, one in bases().items() if kind.fits(one)]
each_case = pytest.mark.parametrize(("name", "base"), CASES, indirect=["base"])
TECHNIQUES = ("lora", "hypernetwork", "textual_inversion", "dreambooth")


@contextmanager
def using(base: Family, *names: str) -> Iterator[None]:
    """Let `names` compute, with and without gradients, and put everything back."""
    for training in (False, True):
        kinds = [KINDS[n] for n in names if not (training and KINDS[n].inference_only)]
        chosen: dict[nn.Module, list[Acceleration]] = {}
        for kind in sorted(kinds, key=lambda kind: kind.part):
            for module in kind.modules(base).values():
                chosen.setdefault(module, []).append(kind())
        base.forwards.choose(training, chosen)
    try:
        yield
    finally:
        base.forwards.remove()


def passes(base: Family, rows: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the prediction for fixed latents, and the gradients of latents and of the text."""
    latents, times = noisy(base, rows)
    latents.requires_grad_()
    with torch.no_grad():
        text = base.encode_text([PROMPTS[0]] * rows)
    text.embeds.requires_grad_()
    output = base.denoise(latents, times, text)
    toward = torch.randn(output.shape, generator=torch.Generator().manual_seed(5))
    gradients = torch.autograd.grad((output * toward).sum(), (latents, text.embeds))
    return output.detach(), *gradients


def close(quick: torch.Tensor, plain: torch.Tensor, tolerance: float) -> bool:
    return float((quick - plain).abs().max()) <= tolerance * float(plain.abs().max())


# A whole network piles up the roundings of its layers.
DEPTH = 10


@each_case
def test_outputs_and_input_gradients_are_those_of_the_plain_way(name: str, base: Family) -> None:
    plain = passes(base)
    with using(base, name):
        quick = passes(base)
    for mine, theirs in zip(quick, plain, strict=True):
        assert close(mine, theirs, KINDS[name].tolerance * DEPTH)


@pytest.mark.parametrize("extent", ["selective", "full"])
@each_case
def test_checkpointing_changes_nothing_of_it(
    name: str, base: Family, extent: Extent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matmul_attention, "LARGEST_TABLE", 100)  # some tables kept, some not
    with using(base, name):
        kept = passes(base)
        recomputing = Recomputing(base.denoiser, extent)
        try:
            again = passes(base)
        finally:
            recomputing.end()
    assert all(map(torch.equal, again, kept))


@each_case
def test_every_module_alone_keeps_the_stated_tolerance(name: str, base: Family) -> None:
    """Module by module, on the very inputs it gets, and its input's gradient."""
    kind, met = KINDS[name], {}
    modules = kind.modules(base)
    handles = [
        module.register_forward_pre_hook(
            lambda module, args, named: met.update({module: (args, named)}), with_kwargs=True
        )
        for module in modules.values()
    ]
    prediction(base)
    for handle in handles:
        handle.remove()
    assert met, "no module was called"
    for module, (args, named) in met.items():
        found = []
        for forward in (module.forward, kind().forward_for(module, module.forward)):
            first = args[0].detach().requires_grad_(not kind.inference_only)
            with torch.set_grad_enabled(not kind.inference_only):
                output = forward(first, *args[1:], **named)
            toward = torch.randn(output.shape, generator=torch.Generator().manual_seed(5))
            loss = (output * toward).sum()
            grad = [] if kind.inference_only else torch.autograd.grad(loss, first)
            found.append([output.detach(), *grad])
        for mine, theirs in zip(found[1], found[0], strict=True):
            assert close(mine, theirs, kind.tolerance)


def kept_for_the_backward_pass(base: Family) -> int:
    """Return the bytes of all that a forward pass keeps for its gradients."""
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    latents, times = noisy(base, 2)
    text = base.encode_text([PROMPTS[0]] * 2)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        base.denoise(latents.requires_grad_(), times, text)
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.frugal])
def test_a_frugal_one_keeps_no_more_than_the_plain_way(name: str, sd1: Family) -> None:
    assert not KINDS[name].copies
    plain = kept_for_the_backward_pass(sd1)
    with using(sd1, name):
        assert kept_for_the_backward_pass(sd1) <= plain
    with using(sd1, "matmul_attention"):
        assert kept_for_the_backward_pass(sd1) > plain  # it can be seen where tables are kept


@each_case
def test_an_exact_one_gives_the_same_bits(name: str, base: Family) -> None:
    if not KINDS[name].exact:
        assert KINDS[name].tolerance > 0
        return
    plain = prediction(base)
    with using(base, name):
        assert torch.equal(prediction(base), plain)
        assert torch.equal(prediction(base), plain)


@each_case
def test_removal_leaves_nothing_behind(name: str, base: Family) -> None:
    plain, kept = prediction(base), weights(base)
    identities = {id(parameter) for parameter in base.denoiser.parameters()}
    with using(base, name):
        passes(base)
        prediction(base)
    assert torch.equal(prediction(base), plain)
    assert all(torch.equal(value, kept[name]) for name, value in weights(base).items())
    assert identities == {id(parameter) for parameter in base.denoiser.parameters()}
    assert not any("forward" in module.__dict__ for module in base.denoiser.modules())


@each_case
def test_what_is_computed_does_not_depend_on_what_was_computed_before(
    name: str, base: Family
) -> None:
    with using(base, name):
        fresh = prediction(base)
    with using(base, name):
        passes(base, rows=3)
        prediction(base, PROMPTS[:1])
        assert torch.equal(prediction(base), fresh)


@each_case
@pytest.mark.parametrize("technique", TECHNIQUES)
def test_techniques_act_and_leave_as_without_it(name: str, base: Family, technique: str) -> None:
    made = stir(make(technique, base)).inject()
    prompts = [f"a can of {phrase(made)}", "the man"]
    try:
        plain = prediction(base, prompts)
    finally:
        made.eject()
    tolerance = KINDS[name].tolerance * DEPTH
    with using(base, name):
        bare = prediction(base)
        made.inject()
        try:
            quick = prediction(base, prompts)
            assert close(quick, plain, tolerance)
            made.strength = 0.5
            assert not torch.equal(prediction(base, prompts), quick)
            made.strength = 1.0
            assert torch.equal(prediction(base, prompts), quick)
        finally:
            made.eject()
        assert torch.equal(prediction(base), bare)


@each_case
@pytest.mark.parametrize("technique", TECHNIQUES)
def test_techniques_get_the_same_gradients(name: str, base: Family, technique: str) -> None:
    made = stir(make(technique, base), 0.02).train().inject()
    prompts = [f"a can of {phrase(made)}", "the man"]

    def gradients() -> list[torch.Tensor]:
        latents, times = noisy(base)
        loss = base.denoise(latents, times, base.encode_text(prompts)).square().mean()
        return list(torch.autograd.grad(loss, list(made.parameters()), materialize_grads=True))

    try:
        plain = gradients()
        with using(base, name):
            quick = gradients()
    finally:
        made.eject()
    largest = max(float(each.abs().max()) for each in plain)
    tolerance = KINDS[name].tolerance * DEPTH
    for mine, theirs in zip(quick, plain, strict=True):
        assert float((mine - theirs).abs().max()) <= tolerance * largest


@each_case
def test_written_and_replaced_weights_are_noticed(name: str, base: Family) -> None:
    kept = {key: value.detach().clone() for key, value in base.denoiser.named_parameters()}
    modules = [m for m in KINDS[name].modules(base).values() if hasattr(m, "weight")]
    try:
        with using(base, name):
            prediction(base)
            with torch.no_grad():
                for module in modules:
                    module.weight.mul_(1.5)
            quick = prediction(base)
        assert close(quick, prediction(base), KINDS[name].tolerance * DEPTH)
    finally:
        with torch.no_grad():
            for key, value in base.denoiser.named_parameters():
                value.copy_(kept[key])


@pytest.mark.parametrize("threads", [1, 4])
def test_attention_over_more_places_than_can_be_kept_equals_torch_s_own(
    threads: int, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """In pieces of heads or of rows, with and without a rest, of other tokens than its own too."""
    request.addfinalizer(partial(torch.set_num_threads, torch.get_num_threads()))
    torch.set_num_threads(threads)
    monkeypatch.setattr(recomputed, "WORTH_THREADS", 0)
    generator = torch.Generator().manual_seed(3)

    def several(places: int) -> torch.Tensor:
        return torch.randn(2, 3, places, 8, generator=generator, dtype=torch.float64)

    for rows, columns, piece in ((20, 20, 2**21), (20, 7, 20 * 7 * 4), (20, 7, 7 * 6), (5, 11, 1)):
        given = [several(rows), several(columns), several(columns)]
        given = [each.float().requires_grad_() for each in given]
        toward = several(rows).float()
        monkeypatch.setattr(recomputed, "PIECE", piece)
        outputs = [
            recomputed.attend(*given, 0.3),
            functional.scaled_dot_product_attention(*given, scale=0.3),
        ]
        assert torch.equal(*outputs)
        found = [torch.autograd.grad(output, given, toward) for output in outputs]
        for mine, theirs in zip(*found, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_a_head_that_fails_is_told_and_lets_no_other_wait(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """As where memory runs out; more heads than threads fail."""
    request.addfinalizer(partial(torch.set_num_threads, torch.get_num_threads()))
    torch.set_num_threads(2)
    monkeypatch.setattr(recomputed, "WORTH_THREADS", 0)
    monkeypatch.setattr(recomputed, "PIECE", 1)

    def fail(*_: torch.Tensor) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(recomputed, "_add_gradients", fail)
    query = torch.ones(1, 8, 5, 4, requires_grad=True)
    output = recomputed.attend(query, query, query, 0.5)
    with pytest.raises(MemoryError, match="no room"):
        torch.autograd.grad(output.sum(), query)


def test_a_table_too_large_to_keep_is_computed_again(
    sd1: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = passes(sd1)
    kept = []
    for largest in (2**25, 0):
        monkeypatch.setattr(matmul_attention, "LARGEST_TABLE", largest)
        with using(sd1, "matmul_attention"):
            quick = passes(sd1)
            kept.append(peak_allocated(lambda: passes(sd1)))
        for mine, theirs in zip(quick, plain, strict=True):
            assert close(mine, theirs, KINDS["matmul_attention"].tolerance * DEPTH)
    assert kept[1] < kept[0]


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"),
    [(3, 1, 1, 1), (1, 1, 0, 1), (3, 2, 1, 1), (3, 2, 0, 2), ((2, 3), (1, 2), (0, 2), (2, 1))],
)
@pytest.mark.parametrize("most", [0, 10**6])
def test_convolutions_as_products_equal_torch_s_own_whatever_their_form(
    kernel: Any, stride: Any, padding: Any, dilation: Any, most: int, monkeypatch: Any
) -> None:
    """By products (`most` places) and, on larger maps, by torch's convolution."""
    monkeypatch.setattr(unfolded, "MOST_PLACES", most)
    monkeypatch.setattr(unfolded, "MOST_PLACES_BACK", most)
    for bias in (True, False):
        module = nn.Conv2d(3, 5, kernel, stride, padding, dilation, bias=bias)
        x = torch.randn(2, 3, 8, 7, generator=torch.Generator().manual_seed(1)).requires_grad_()
        wanted = module(x)
        found = unfolded.convolve(module, x.detach())
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
        assert found.is_contiguous()
        assert unfolded.places(x.shape, module) == wanted[:, 0].numel()
        toward = 2 * wanted.detach()
        of_x, of_weight = torch.autograd.grad(wanted.square().sum(), (x, module.weight))
        mine = unfolded.input_gradient(module, module.weight, toward, x.shape)
        torch.testing.assert_close(mine, of_x, rtol=1e-4, atol=1e-5)
        mine = unfolded.weight_gradient(module, x, toward)
        torch.testing.assert_close(mine, of_weight, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [n for n, kind in KINDS.items() if kind.part == "convolutions"])
@pytest.mark.parametrize("most", [0, 10**6])
def test_convolutions_that_are_trained_get_the_gradients_of_torch_s_own(
    name: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of input, weight and bias, and of what alone is asked for."""
    monkeypatch.setattr(unfolded, "MOST_PLACES", most)
    for trained in (["weight", "bias"], ["weight"], ["bias"]):
        module = nn.Conv2d(3, 5, 3, padding=1).requires_grad_(False)
        asked = [getattr(module, each).requires_grad_() for each in trained]
        x = torch.randn(2, 3, 8, 7, generator=torch.Generator().manual_seed(1)).requires_grad_()
        found = []
        for forward in (module.forward, KINDS[name]().forward_for(module, module.forward)):
            for inputs in (x, x.detach()):
                output = forward(inputs)
                wanted = [*([inputs] if inputs.requires_grad else []), *asked]
                found.append([output, *torch.autograd.grad(output.square().sum(), wanted)])
        for plain, quick in zip(found[:2], found[2:], strict=True):
            for theirs, mine in zip(plain, quick, strict=True):
                torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
