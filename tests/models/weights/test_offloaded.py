"""Offloaded blocks: what they compute, what they give up, and that they come back as they were."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from personae.core.registry import discover
from personae.errors import UnsupportedError
from personae.generation.generate import draw
from personae.generation.sampler import Shot
from personae.generation.settings import Sampling
from personae.models.family import Family
from personae.models.load import keep_blocks, load_base, offload_blocks
from personae.models.toys import tiny_z_image
from personae.models.weights.files import weight_bytes
from personae.models.weights.offloaded import (
    chosen_blocks,
    offloaded_bytes,
    repeated_blocks,
)
from personae.training.memory.counter import peak_allocated
from personae.training.schedule import Extent
from tiny_world import prediction, run, run_config, trainer_of

FAMILIES = {name: kind.tiny()[0] for name, kind in discover(Family).items()}
SLACK = 2 * 16 * 64  # bytes; weights of a block begin at multiples of 16


@pytest.fixture(params=sorted(FAMILIES))
def base(request: pytest.FixtureRequest) -> Iterator[Family]:
    base = FAMILIES[request.param]
    yield base
    keep_blocks(base)


def gradients(base: Family, character: Path, extent: Extent) -> list[Tensor]:
    """Return the losses of two steps of a LoRA and the gradients of the second one."""
    schedule = {"gradient_checkpointing": extent, "batch_size": 2, "resolution": 64}
    config = run_config(character, technique="lora", acceleration="none", schedule=schedule)
    trainer = trainer_of(config.resolved(6, base), base)
    try:
        losses = [trainer.backward(step) for step in range(2)]
        return [*losses, *(p.grad for p in trainer.parameters if p.grad is not None)]
    finally:
        trainer.eject()


@pytest.mark.parametrize("extent", ["none", "selective", "full"])
def test_gradients_are_those_of_the_resident_network(
    base: Family, character: Path, extent: Extent
) -> None:
    wanted = gradients(base, character, extent)
    for share in (1.0, 0.5):
        offload_blocks(base, share)
        found = gradients(base, character, extent)
        keep_blocks(base)
        assert len(found) == len(wanted) > 2
        assert all(map(torch.equal, found, wanted))


def test_pictures_are_those_of_the_resident_network(base: Family) -> None:
    sampling = Sampling(steps=2, width=64, height=64)
    (wanted,) = draw(base, [Shot("a cat")], sampling)
    weights = list(base.denoiser.parameters())
    before = [weight.detach().clone() for weight in weights]
    offload_blocks(base, 1.0)
    (found,) = draw(base, [Shot("a cat")], sampling)
    assert found.image.tobytes() == wanted.image.tobytes()
    keep_blocks(base)
    assert all(map(torch.equal, weights, before))
    assert all(a is b for a, b in zip(weights, base.denoiser.parameters(), strict=True))
    hooks = (each._forward_hooks or each._forward_pre_hooks for each in base.denoiser.modules())
    assert not any(hooks)


def deep() -> Family:
    """Return a base whose denoiser is mostly blocks."""
    pipe = tiny_z_image()
    config = {**pipe.transformer.config, "n_layers": 8}
    torch.manual_seed(0)
    pipe.transformer = type(pipe.transformer).from_config(config)
    (kind,) = (each for each in discover(Family).values() if each.name == "z_image")
    return kind.from_pipeline(pipe, "deep", torch.device("cpu"), torch.float32)


def present(network: nn.Module) -> int:
    """Return the bytes that the values of a network's parameters take."""
    stores = [p.untyped_storage() for p in network.parameters()]
    return sum({store.data_ptr(): store.nbytes() for store in stores}.values())


@pytest.mark.parametrize("extent", ["none", "full"])
def test_no_more_than_two_blocks_are_on_the_device(character: Path, extent: Extent) -> None:
    base = deep()
    away, there = offloaded_bytes(base.denoiser, 1.0)
    assert away > 4 * there > 0
    resident = peak_allocated(lambda: gradients(base, character, extent))
    whole = weight_bytes(base.denoiser)
    offload_blocks(base, 1.0)
    assert present(base.denoiser) <= whole - away + SLACK
    most = peak_allocated(lambda: gradients(base, character, extent))
    assert most - resident <= there + SLACK
    assert present(base.denoiser) <= whole - away + SLACK


def test_a_share_is_spread_evenly() -> None:
    network = deep().denoiser
    blocks = repeated_blocks(network)
    assert len(blocks) > 8
    places = [blocks.index(block) for block in chosen_blocks(network, 0.5)]
    assert len(places) == len(blocks) // 2
    assert all(b - a in (1, 2, 3) for a, b in pairwise(places))
    assert chosen_blocks(network, 1.0) == blocks
    assert not chosen_blocks(network, 0.0)


def test_blocks_left_in_their_file_are_read_straight_to_the_host(tmp_path: Path) -> None:
    tiny_z_image().save_pretrained(tmp_path)
    wanted = prediction(load_base(tmp_path, device="cpu", precision="bf16"))
    base = load_base(tmp_path, device="cpu", precision="bf16", denoiser_unloaded=True)
    offload_blocks(base, 1.0)
    away = present(base.denoiser)
    assert torch.equal(prediction(base), wanted)  # read for the call alone
    assert present(base.denoiser) == away
    base.unloaded.reload()
    rest = weight_bytes(base.denoiser) - offloaded_bytes(base.denoiser, 1.0)[0]
    assert present(base.denoiser) <= rest + SLACK
    assert torch.equal(prediction(base), wanted)


def test_a_whole_run_learns_the_same(character: Path, tmp_path: Path) -> None:
    """With previews on the way, and the proof that the file draws what memory drew."""
    base, files = deep(), []
    for name, share in (("resident", 0.0), ("offloaded", 1.0)):
        if share:
            offload_blocks(base, share)
        config = run_config(character, preview_every=2, preview_prompts=["a cat"])
        run(config, tmp_path / name, base)
        files.append(load_file(next((tmp_path / name).glob("*.safetensors"))))
        assert (base.offloaded is not None) == bool(share)
    assert files[0].keys() == files[1].keys()
    assert all(torch.equal(value, files[1][key]) for key, value in files[0].items())


def test_a_failed_call_leaves_nothing_behind() -> None:
    base = deep()
    wanted = prediction(base)
    offload_blocks(base, 1.0)
    away = present(base.denoiser)
    with pytest.raises(TypeError):
        repeated_blocks(base.denoiser)[0](torch.zeros(1, 3, 7))
    assert present(base.denoiser) == away
    assert torch.equal(prediction(base), wanted)


def test_techniques_that_change_weights_are_refused(character: Path, tmp_path: Path) -> None:
    base = deep()
    offload_blocks(base, 0.5)
    with pytest.raises(UnsupportedError, match="leave block_offload out"):
        run(run_config(character, technique="dreambooth"), tmp_path, base)


def test_quantised_blocks_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("torchao")
    tiny_z_image().save_pretrained(tmp_path)
    base = load_base(tmp_path, device="cpu", precision="int8")
    with pytest.raises(UnsupportedError, match="is quantised"):
        offload_blocks(base, 1.0)
