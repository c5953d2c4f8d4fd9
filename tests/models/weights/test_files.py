"""Weights read tensor by tensor: the same base as diffusers loads, in the memory of its weights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from personae.models.load import load_base
from personae.models.toy_flux1 import tiny_flux
from personae.models.toys import tiny_stable_diffusion
from personae.models.weights.files import networks
from personae.training.events import Preparing, Validation
from personae.training.train import train
from tiny_world import only, run, run_config


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_stable_diffusion(1).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_networks_are_those_that_diffusers_loads(folder: Path, dtype: torch.dtype) -> None:
    mine = networks(folder, dtype)
    theirs = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=dtype)
    assert set(mine) == {"unet", "vae", "text_encoder"}
    for name, network in mine.items():
        known = getattr(theirs, name)
        assert type(network) is type(known)
        for (key, value), (_, wanted) in zip(
            sorted(network.state_dict().items()), sorted(known.state_dict().items()), strict=True
        ):
            assert torch.equal(value, wanted), key
        assert not any(tensor.is_meta for tensor in (*network.parameters(), *network.buffers()))


def unknown_to_the_network(file: Path) -> None:
    """Add a tensor that the network of a file does not have."""
    save_file({**load_file(file), "unknown": torch.zeros(1)}, file, {"format": "pt"})


def in_shards(folder: Path, network: Any, component: str) -> None:
    """Write a component of a base in several files in the place of one."""
    for file in (folder / component).glob("*.safetensors"):
        file.unlink()
    network.save_pretrained(folder / component, max_shard_size="200KB")
    assert len(list((folder / component).glob("*.safetensors"))) > 1


def test_weights_in_several_files_are_read_as_those_in_one(folder: Path) -> None:
    whole = load_base(folder, device="cpu", precision="fp32")
    in_shards(folder, whole.denoiser, "unet")
    read = networks(folder, torch.float32)["unet"].state_dict()
    for name, value in whole.denoiser.state_dict().items():
        assert torch.equal(read[name], value), name
    sharded = load_base(folder, device="cpu", precision="fp32")
    assert sharded.fingerprint == whole.fingerprint


def test_what_cannot_be_read_here_is_left_to_diffusers(folder: Path) -> None:
    whole = load_base(folder, device="cpu", precision="fp32")
    unknown_to_the_network(folder / "unet" / "diffusion_pytorch_model.safetensors")
    assert "unet" not in networks(folder, torch.float32)
    assert load_base(folder, device="cpu", precision="fp32").fingerprint == whole.fingerprint


@pytest.mark.parametrize("stored", ["the table alone", "its copy alone", "both"])
def test_tied_weights_are_read_once_and_stay_tied(tmp_path: Path, stored: str) -> None:
    tiny_flux(guidance=True).save_pretrained(tmp_path)
    table, copy = "shared.weight", "encoder.embed_tokens.weight"
    file = tmp_path / "text_encoder_2" / "model.safetensors"
    tensors = load_file(file)
    value = tensors.get(table, tensors.get(copy))
    kept = {"the table alone": (table,), "its copy alone": (copy,), "both": (table, copy)}[stored]
    others = {name: each for name, each in tensors.items() if name not in (table, copy)}
    save_file({**others, **{name: value.clone() for name in kept}}, file, {"format": "pt"})
    read = networks(tmp_path, torch.float32)["text_encoder_2"]
    assert torch.equal(read.get_parameter(table), value)
    assert torch.equal(read.get_parameter(copy), value)
    assert (read.get_parameter(table) is read.get_parameter(copy)) == (stored != "both")


def test_a_run_without_encoders_in_memory_learns_the_same(
    folder: Path, character: Path, tmp_path: Path
) -> None:
    base = load_base(folder, device="cpu", precision="fp32")
    losses, files = [], []
    for name, unload in (("kept", False), ("unloaded", True)):
        config = run_config(
            character, base=str(folder), unload=unload, preview_every=2, preview_prompts=["a cat"]
        )
        events = run(config, tmp_path / name, base)
        losses.append([(e.step, e.loss) for e in only(events, Validation)])
        files.append(next((tmp_path / name).glob("*.safetensors")))
    assert losses[0] == losses[1]
    for mine, theirs in zip(*(load_file(file).values() for file in files), strict=True):
        assert torch.equal(mine, theirs)


def test_a_run_closed_while_class_pictures_are_drawn_leaves_the_base_in_memory(
    folder: Path, character: Path, tmp_path: Path
) -> None:
    base = load_base(folder, device="cpu", precision="fp32")
    before = [parameter.detach().clone() for parameter in base.autoencoder.parameters()]
    schedule = {"prior": "images", "prior_images": 2}
    config = run_config(character, base=str(folder), unload=True, schedule=schedule)
    events = train(config, tmp_path / "run", base=base)
    drawing = "drawing class pictures"
    assert next(e for e in events if isinstance(e, Preparing) and e.what == drawing)
    events.close()
    assert all(map(torch.equal, base.autoencoder.parameters(), before))
    assert not any(part._forward_pre_hooks for part in base.autoencoder.modules())


MEASURE = """
import resource, sys, torch
from personae.models.weights.files import networks
from pathlib import Path
networks(Path(sys.argv[2]), torch.bfloat16)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
kept = networks(Path(sys.argv[1]), torch.bfloat16)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((after - before) * 1024, sum(p.nbytes for n in kept.values() for p in n.parameters()))
"""


def test_float32_files_never_lie_in_memory_whole(folder: Path, tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel

    with torch.device("cpu"):
        wide = UNet2DConditionModel(
            block_out_channels=(128, 256, 512, 512), layers_per_block=1, cross_attention_dim=64
        )
    wide.save_pretrained(tmp_path / "wide" / "unet")
    index = '{"unet": ["diffusers", "UNet2DConditionModel"]}'
    (tmp_path / "wide" / "model_index.json").write_text(index, encoding="utf-8")
    arguments = [sys.executable, "-c", MEASURE, str(tmp_path / "wide"), str(folder)]
    printed = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
    grown, weights = map(int, printed.split())
    assert weights > 100 * 2**20
    assert grown < 1.35 * weights  # a float32 copy would be three times as much
