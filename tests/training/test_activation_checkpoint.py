"""Only what must be remembered is remembered, counted in the bytes that autograd saves."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from personae.models.family import Family
from personae.training.activation_checkpoint import Recomputing
from personae.training.memory.counter import peak_allocated
from personae.training.schedule import Extent
from personae.training.trainer import Trainer
from tiny_world import make, noisy, run_config, trainer_of


def saved_while(base: Family, block: torch.nn.Module) -> tuple[int, int]:
    """Return the bytes saved for the backward pass inside `block` and in all of the denoiser."""
    weights = {p.untyped_storage().data_ptr() for p in base.denoiser.parameters()}
    inside, bytes_of = [False], {True: 0, False: 0}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            bytes_of[inside[0]] += tensor.nbytes
        return tensor

    def enter(*_: Any) -> None:
        inside[0] = True

    def leave(*_: Any) -> None:
        inside[0] = False

    handles = [block.register_forward_pre_hook(enter), block.register_forward_hook(leave)]
    latents, times = noisy(base)
    try:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            text = base.encode_text(["a cat", "the man"])
            base.denoise(latents, times, text)
    finally:
        for handle in handles:
            handle.remove()
    return bytes_of[True], bytes_of[True] + bytes_of[False]


@pytest.mark.parametrize(
    ("technique", "settings"),
    [("lora", {"targets": "cross_attention"}), ("textual_inversion", {})],
)
def test_nothing_is_kept_of_layers_before_the_first_trained_one(
    technique: str, settings: dict[str, Any], sd1: Family
) -> None:
    """First convolution, residual block and self-attention come before what is trained."""
    made = make(technique, sd1, **settings).train().inject()
    first = sd1.denoiser.down_blocks[0]
    try:
        for before in (
            sd1.denoiser.conv_in,
            first.resnets[0],
            first.attentions[0].transformer_blocks[0].attn1,
        ):
            inside, whole = saved_while(sd1, before)
            assert inside == 0
            assert whole > 0
        inside, _ = saved_while(sd1, sd1.denoiser.mid_block)
        assert inside > 0  # the counting counts
    finally:
        made.eject()


def trainer_for(character: Path, base: Family, **schedule: Any) -> Trainer:
    config = run_config(character, schedule=schedule)
    return trainer_of(config, base)


def test_recomputing_gives_the_same_gradients_and_saves_bytes(character: Path, sd1: Family) -> None:
    gradients, peaks = [], []
    for extent in ("none", "selective", "full"):
        trainer = trainer_for(character, sd1, gradient_checkpointing=extent)
        try:
            trainer.rehearse(0)  # fills the caches
            peaks.append(peak_allocated(partial(trainer.backward, 0)))
            gradients.append([p.grad.clone() for p in trainer.parameters])
        finally:
            trainer.eject()
    for kept, *recomputed in zip(*gradients, strict=True):
        for mine in recomputed:
            torch.testing.assert_close(mine, kept, rtol=1e-4, atol=1e-7)
    assert peaks[2] < 0.9 * peaks[1] < 0.9 * 0.9 * peaks[0]


def computed_again(base: Family, extent: Extent, sides: list[int]) -> set[str]:
    """Return the parts that are computed twice in passes on latents of those sides."""
    named = {module: name for name, module in base.denoiser.named_modules()}
    parts = [each for each in named if isinstance(each, ResnetBlock2D | BasicTransformerBlock)]
    counts: Counter[nn.Module] = Counter()
    handles = [each.register_forward_pre_hook(lambda m, _: counts.update([m])) for each in parts]
    recomputing = Recomputing(base.denoiser, extent)
    try:
        for side in sides:
            latents = torch.zeros(1, 4, side, side, requires_grad=True)
            text = base.encode_text(["a cat"])
            base.denoise(latents, torch.ones(1), text).sum().backward()
    finally:
        recomputing.end()
        for handle in handles:
            handle.remove()
    return {named[part] for part, count in counts.items() if count == 2 * len(sides)}


def test_selective_recomputes_the_blocks_on_the_largest_maps_in_every_pass(sd1: Family) -> None:
    again = computed_again(sd1, "selective", [16, 8])  # of a smaller picture too
    assert {name.split(".attentions")[0].split(".resnets")[0] for name in again} == {
        "down_blocks.0",
        f"up_blocks.{len(sd1.denoiser.up_blocks) - 1}",
    }
    everything = computed_again(sd1, "full", [16, 8])
    assert again < everything
    assert any(name.startswith("mid_block") for name in everything)
    assert not computed_again(sd1, "none", [16])
    assert not sd1.denoiser.is_gradient_checkpointing


def test_a_batch_in_parts_takes_the_activations_of_a_part(character: Path, sd1: Family) -> None:
    peaks = []
    for micro_batch in (None, 1):
        trainer = trainer_for(character, sd1, batch_size=4, micro_batch=micro_batch)
        try:
            trainer.rehearse(0)
            peaks.append(peak_allocated(partial(trainer.backward, 0)))
        finally:
            trainer.eject()
    assert peaks[1] < 0.4 * peaks[0]


def test_dreambooth_holds_merged_weights_of_one_block_at_a_time(
    character: Path, sd1: Family
) -> None:
    """With updates inside the backward pass neither they nor their gradients add up."""
    peaks = []
    for extent in ("none", "full"):
        config = run_config(
            character,
            technique="dreambooth",
            acceleration="none",
            schedule={"update": "in_backward", "gradient_checkpointing": extent},
        )
        trainer = trainer_of(config, sd1)
        try:
            trainer.rehearse(0)  # fills the caches
            peaks.append(peak_allocated(partial(trainer.rehearse, 0)))
        finally:
            trainer.eject()
    weights = sum(each.numel() * each.element_size() for each in sd1.denoiser.parameters())
    assert peaks[0] > weights > peaks[1]
