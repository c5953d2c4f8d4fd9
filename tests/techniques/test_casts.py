"""What is learnt is cast once a pass, all of it together, with the bits of casts alone."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from personae.models.family import Family
from personae.models.text import Text
from personae.techniques.casts import Casts
from personae.training.activation_checkpoint import Recomputing
from personae.training.schedule import Extent
from tiny_world import make, noisy, stir

MOST_OPERATORS = 2400  # of a LoRA's pass in the structure of Stable Diffusion 1.5; 2,844 cast alone


class Operators(TorchDispatchMode):
    """Counts operators that compute; views and allocations do not."""

    FREE = (torch.ops.aten._unsafe_view.default, torch.ops.aten.empty.memory_format)

    def __init__(self) -> None:
        super().__init__()
        self.count, self.casts = 0, 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.count += not (func.is_view or func in self.FREE)
        self.casts += func is torch.ops.aten._to_copy.default
        return func(*args, **(kwargs or {}))


def in_bf16(base: Family, denoiser: nn.Module) -> Family:
    """Return a base with another denoiser, in bf16, as GPUs have it."""
    denoiser = denoiser.to(torch.bfloat16).requires_grad_(False).eval()
    return dataclasses.replace(base, denoiser=denoiser, dtype=torch.bfloat16, overlays={})


def weights(*shapes: tuple[int, ...]) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(5)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def test_a_pass_at_the_shape_of_stable_diffusion_launches_few_operators(sd1: Family) -> None:
    """Its structure in narrow; widths change no number of operators."""
    denoiser = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32, 32, 32),
        norm_num_groups=8,
        layers_per_block=2,
        cross_attention_dim=16,
        attention_head_dim=8,
    )
    base = in_bf16(sd1, denoiser)
    technique = make("lora", base).train()
    text = Text(torch.zeros(1, 7, 16, dtype=torch.bfloat16))
    technique.inject()
    try:
        with Operators() as operators:
            output = base.denoise(torch.zeros(1, 4, 8, 8), torch.ones(1), text)
            output.float().square().mean().backward()
    finally:
        technique.eject()
    assert len(technique.layers) == 128
    assert 2000 < operators.count <= MOST_OPERATORS
    assert operators.casts < 20


def gradients(name: str, base: Family, extent: Extent) -> list[Tensor]:
    technique = stir(make(name, base)).train()
    latents, times = noisy(base)
    text = Text(torch.randn(2, 7, 24, generator=torch.Generator().manual_seed(1)).bfloat16())
    recomputing = Recomputing(base.denoiser, extent)
    technique.inject()
    try:
        for _ in range(2):  # the second adds to the first
            base.denoise(latents, times, text).float().square().mean().backward()
    finally:
        technique.eject()
        recomputing.end()
    return [parameter.grad for parameter in technique.parameters()]


@pytest.mark.parametrize("extent", ["none", "full"])
@pytest.mark.parametrize("name", ["lora", "hypernetwork"])
def test_gradients_have_the_bits_of_casts_alone(
    name: str, extent: Extent, shallow: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = in_bf16(shallow, copy.deepcopy(shallow.denoiser))
    together = gradients(name, base, extent)
    monkeypatch.setattr(Casts, "begin", lambda *_: None)
    alone = gradients(name, base, extent)
    assert all(each.dtype is torch.float32 and each.any() for each in together)
    if name == "lora":  # a layer has a matrix to itself, so that nothing is added up in bf16
        assert all(map(torch.equal, together, alone))
    for mine, theirs in zip(together, alone, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0.05, atol=0.05 * theirs.abs().max().item())


def test_casts_equal_those_of_each_alone_with_gaps_between_them() -> None:
    made = weights((3, 5), (7,), (2, 2, 3, 3))
    casts = Casts()
    casts.begin(made, torch.bfloat16)
    for weight in made:
        cast = casts.of(weight, torch.bfloat16)
        assert torch.equal(cast, weight.to(torch.bfloat16))
        assert cast.data_ptr() % 64 == 0
        assert cast.is_contiguous()
    used = casts.of(made[1], torch.bfloat16)
    (used * used).sum().backward()
    assert torch.equal(made[1].grad, (2 * used).float())
    assert made[0].grad is None


def test_a_weight_that_was_updated_since_is_cast_alone() -> None:
    (weight,) = weights((4, 4))
    casts = Casts()
    casts.begin([weight], torch.bfloat16)
    with torch.no_grad():
        weight.add_(1)
    assert torch.equal(casts.of(weight, torch.bfloat16), weight.to(torch.bfloat16))


def test_what_was_cast_to_draw_learns_nothing_and_is_cast_anew_to_train() -> None:
    (weight,) = weights((4, 4))
    casts = Casts()
    with torch.no_grad():
        casts.begin([weight], torch.bfloat16)
        first = casts.of(weight, torch.bfloat16)
        casts.begin([weight], torch.bfloat16)
        assert casts.of(weight, torch.bfloat16) is first  # nothing has changed since
    assert casts.of(weight, torch.bfloat16).requires_grad
    casts.begin([weight], torch.bfloat16)
    assert casts.of(weight, torch.bfloat16) is not first
    casts.forget()
    assert casts.of(weight, torch.float32) is weight
