"""Unloaded networks: out of memory, in it for the length of a call, and back as they were."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from personae.errors import BaseError
from personae.generation.generate import draw
from personae.generation.sampler import Shot
from personae.generation.settings import Sampling
from personae.models.family import Family
from personae.models.load import load_base
from personae.models.toy_flux1 import tiny_flux
from personae.models.toys import tiny_stable_diffusion, tiny_z_image
from personae.models.weights import sources
from personae.models.weights.files import weight_bytes
from personae.models.weights.unloaded import Unloaded, readable_again
from tiny_world import prediction

SAMPLING = Sampling(steps=2, width=64, height=64)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_stable_diffusion(1).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def base(folder: Path) -> Family:
    return load_base(folder, device="cpu", precision="bf16")


def held(parameters: Iterable[nn.Parameter]) -> int:
    """Return the bytes that the values of parameters take."""
    stores = [p.untyped_storage() for p in parameters]
    return sum({store.data_ptr(): store.nbytes() for store in stores}.values())


def all_of(folder: Path, base: Family) -> Unloaded:
    parts = {"unet": base.denoiser, "vae": base.autoencoder, "text_encoder": base.towers[0].encoder}
    return Unloaded(list(readable_again(folder, parts)))


def test_networks_put_aside_keep_their_shapes_and_come_back_bitwise(
    folder: Path, base: Family
) -> None:
    before, parameters = prediction(base), list(base.denoiser.parameters())
    unloaded = all_of(folder, base)
    assert len(unloaded.files) == 3
    with unloaded:
        assert held(parameters) <= 2 * len(parameters)
        assert [p.shape for p in base.denoiser.parameters()] == [p.shape for p in parameters]
    assert all(a is b for a, b in zip(parameters, base.denoiser.parameters(), strict=True))
    assert torch.equal(prediction(base), before)
    hooks = (each._forward_hooks or each._forward_pre_hooks for each in base.denoiser.modules())
    assert not any(hooks)


def test_a_base_whose_networks_are_all_aside_draws_the_same_picture(
    folder: Path, base: Family
) -> None:
    (whole,) = draw(base, [Shot("a cat")], SAMPLING)
    with all_of(folder, base):
        (unloaded,) = draw(base, [Shot("a cat")], SAMPLING)
    assert whole.image.tobytes() == unloaded.image.tobytes()


def test_only_the_part_that_is_called_is_in_memory(folder: Path, base: Family) -> None:
    vae = base.autoencoder
    most = 0

    def look(*_: object) -> None:
        nonlocal most
        most = max(most, held(vae.parameters()))

    unloaded = all_of(folder, base)
    whole = weight_bytes(vae)
    with unloaded:
        hooks = [part.register_forward_hook(look) for part in vae.decoder.modules()]
        draw(base, [Shot("a cat")], SAMPLING)
        after = held(vae.parameters())
        for hook in hooks:
            hook.remove()
    places = 2 * len(list(vae.parameters()))  # an empty parameter has room for one number
    assert 0 < most <= weight_bytes(vae.decoder) + places < whole
    assert after <= places
    assert unloaded.largest_part >= weight_bytes(vae.decoder)


def test_large_parts_come_back_block_by_block(
    folder: Path, base: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    (whole,) = draw(base, [Shot("a cat")], SAMPLING)
    unloaded = all_of(folder, base)
    before = unloaded.largest_part
    monkeypatch.setattr("personae.models.weights.unloaded.LARGE", 2**10)
    assert unloaded.largest_part < before / 2
    with unloaded:
        (blockwise,) = draw(base, [Shot("a cat")], SAMPLING)
    assert whole.image.tobytes() == blockwise.image.tobytes()


def test_a_call_that_fails_leaves_nothing_in_memory(folder: Path, base: Family) -> None:
    with all_of(folder, base):
        with pytest.raises(RuntimeError):
            base.autoencoder.decoder(torch.zeros(1, 3, 8, 8, dtype=torch.bfloat16))
        assert held(base.autoencoder.parameters()) <= 2 * len(list(base.autoencoder.parameters()))


def test_weights_that_belong_to_no_part_stay(tmp_path: Path) -> None:
    """No call of a part would bring the padding tokens of Z-Image back."""
    tiny_z_image().save_pretrained(tmp_path / "base")
    base = load_base(tmp_path / "base", device="cpu", precision="bf16")
    wanted = prediction(base)
    aside = load_base(tmp_path / "base", device="cpu", precision="bf16", denoiser_unloaded=True)
    assert aside.unloaded.away
    assert aside.fingerprint == base.fingerprint
    assert held(aside.denoiser.parameters()) < held(base.denoiser.parameters()) / 20
    assert torch.equal(prediction(aside), wanted)
    aside.unloaded.reload()
    assert torch.equal(prediction(aside), wanted)


def test_a_foreign_base_is_never_read_in_the_place_of_the_loaded_one(
    folder: Path, sd1: Family
) -> None:
    """A base made in memory has no file, whatever the run calls it."""
    parts = {"unet": sd1.denoiser, "vae": sd1.autoencoder}
    assert not list(readable_again(sources.local_folder(sd1.source), parts))


@pytest.fixture
def without_denoiser(folder: Path) -> Family:
    return load_base(folder, device="cpu", precision="bf16", denoiser_unloaded=True)


def test_a_base_loaded_without_its_denoiser_is_the_same_base(
    base: Family, without_denoiser: Family
) -> None:
    parameters = list(without_denoiser.denoiser.parameters())
    assert held(parameters) <= 2 * len(parameters)
    assert without_denoiser.unloaded.bytes_away == weight_bytes(base.denoiser)
    assert without_denoiser.fingerprint == base.fingerprint
    assert torch.equal(prediction(without_denoiser), prediction(base))  # read for the call alone
    assert held(parameters) <= 2 * len(parameters)
    without_denoiser.unloaded.reload()
    assert not without_denoiser.unloaded.bytes_away
    states = (each.denoiser.state_dict() for each in (base, without_denoiser))
    assert all(map(torch.equal, *(state.values() for state in states)))
    assert torch.equal(prediction(without_denoiser), prediction(base))


def test_passes_on_shapes_alone_read_nothing(without_denoiser: Family) -> None:
    hooks = [len(part._forward_pre_hooks) for part in without_denoiser.denoiser.modules()]
    with without_denoiser.unloaded.shapes_only():
        assert not any(part._forward_pre_hooks for part in without_denoiser.denoiser.modules())
    assert [len(part._forward_pre_hooks) for part in without_denoiser.denoiser.modules()] == hooks


def test_a_denoiser_in_several_files_leaves_memory_too(folder: Path, base: Family) -> None:
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    base.denoiser.save_pretrained(folder / "unet", max_shard_size="200KB")
    assert len(list((folder / "unet").glob("*.safetensors"))) > 1
    sharded = load_base(folder, device="cpu", precision="bf16", denoiser_unloaded=True)
    parameters = list(sharded.denoiser.parameters())
    assert held(parameters) <= 2 * len(parameters)
    assert sharded.fingerprint == base.fingerprint
    assert torch.equal(prediction(sharded), prediction(base))
    sharded.unloaded.reload()
    assert torch.equal(prediction(sharded), prediction(base))


def test_a_denoiser_that_is_not_read_here_is_loaded_whole(folder: Path, base: Family) -> None:
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({**load_file(file), "unknown": torch.zeros(1)}, file, {"format": "pt"})
    whole = load_base(folder, device="cpu", precision="bf16", denoiser_unloaded=True)
    assert not whole.unloaded.files
    assert whole.fingerprint == base.fingerprint
    assert torch.equal(prediction(whole), prediction(base))


def test_tied_weights_come_back_as_they_were(tmp_path: Path) -> None:
    """The table of T5 is tied to another one, and its file holds one of them."""
    tiny_flux(guidance=True).save_pretrained(tmp_path)
    base = load_base(tmp_path, device="cpu", precision="fp32")
    encoder = base.towers[1].encoder
    before = base.encode_text(["a cat on a mat"])
    with Unloaded(list(readable_again(tmp_path, {"text_encoder_2": encoder}))) as unloaded:
        assert unloaded.away
        aside = base.encode_text(["a cat on a mat"])
    assert torch.equal(aside.embeds, before.embeds)
    assert encoder.shared.weight is encoder.encoder.embed_tokens.weight
    assert torch.equal(base.encode_text(["a cat on a mat"]).embeds, before.embeds)


def test_a_denoiser_cut_short_is_refused_before_anything_is_read_of_it(folder: Path) -> None:
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(BaseError, match="is damaged"):
        load_base(folder, device="cpu", precision="bf16", denoiser_unloaded=True)
