"""Folders of bases that are not whole: refused in one line that names the file and what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from personae.errors import BaseError
from personae.models.load import load_base
from personae.models.toys import tiny_stable_diffusion

UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
PARTS = [f"diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i in (1, 2)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a whole base."""
    folder = tmp_path_factory.mktemp("bases") / "whole"
    tiny_stable_diffusion(1).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """Return a copy of it."""
    return Path(shutil.copytree(whole, tmp_path / "base"))


def refusal(folder: Path) -> str:
    with pytest.raises(BaseError) as caught:
        load_base(folder, device="cpu", precision="fp32")
    message = str(caught.value)
    assert "\n" not in message
    return message


def without_one(file: Path) -> str:
    """Take a weight out of a file and return its name."""
    tensors = load_file(file)
    name = sorted(tensors)[len(tensors) // 2]
    del tensors[name]
    save_file(tensors, file, {"format": "pt"})
    return name


def sharded(folder: Path) -> list[Path]:
    """Put the U-Net into two files with an index, and return them."""
    tensors = load_file(folder / UNET)
    (folder / UNET).unlink()
    places = {name: PARTS[i % 2] for i, name in enumerate(sorted(tensors))}
    for part in PARTS:
        mine = {name: value for name, value in tensors.items() if places[name] == part}
        save_file(mine, folder / "unet" / part, {"format": "pt"})
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (folder / f"{UNET}.index.json").write_text(json.dumps(index), encoding="utf-8")
    return [folder / "unet" / part for part in PARTS]


@pytest.mark.parametrize("file", [UNET, TEXT])
def test_a_file_that_was_cut_is_named_with_what_is_there(file: str, folder: Path) -> None:
    path = folder / file
    content = path.read_bytes()
    path.write_bytes(content[:-1000])
    there = f"{len(content) - 1000:,} of {len(content):,} bytes are there"
    assert refusal(folder) == (
        f"{path}: is damaged (the file ends before its last tensor does: {there}); fetch it again"
    )


@pytest.mark.parametrize("file", [UNET, TEXT])
def test_a_file_that_lacks_a_weight_is_named_with_it(file: str, folder: Path) -> None:
    wanted = len(load_file(folder / file))
    name = without_one(folder / file).removeprefix("text_model.")
    assert refusal(folder) == (
        f"{folder / file}: has no '{name}' ({wanted} weights expected); fetch it again"
    )


@pytest.mark.parametrize("file", [UNET, TEXT])
def test_a_weight_of_another_shape_is_named_with_both(file: str, folder: Path) -> None:
    tensors = load_file(folder / file)
    name = next(name for name, value in tensors.items() if value.dim() == 1)
    size = len(tensors[name])
    save_file(tensors | {name: torch.zeros(size + 1)}, folder / file, {"format": "pt"})
    told = refusal(folder)
    assert f"has the shape [{size + 1}], and config.json beside it asks for [{size}]" in told
    assert told.startswith(f"{folder / file}: '{name.removeprefix('text_model.')}'")


def test_a_base_in_several_files_is_read_and_one_of_them_missed(folder: Path) -> None:
    _, second = sharded(folder)
    assert load_base(folder, device="cpu", precision="fp32").denoiser is not None
    second.unlink()
    index = folder / f"{UNET}.index.json"
    assert refusal(folder) == (
        f"{index}: lists '{second.name}', which is not there (1 of 2 files are); fetch it"
    )


def test_a_part_that_lacks_what_the_index_says_of_it_is_named(folder: Path) -> None:
    _, second = sharded(folder)
    name = without_one(second)
    index = folder / f"{UNET}.index.json"
    assert refusal(folder) == (
        f"{second}: does not hold '{name}', as {index} says; fetch both again"
    )


def missing(file: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).unlink()


def holding(file: str, text: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / file).write_text(text, encoding="utf-8")

    return change


def layers(folder: Path) -> None:
    config = json.loads((folder / "unet" / "config.json").read_text(encoding="utf-8"))
    config["layers_per_block"] = "two"
    (folder / "unet" / "config.json").write_text(json.dumps(config), encoding="utf-8")


def other_class(folder: Path) -> None:
    index = folder / "model_index.json"
    text = index.read_text(encoding="utf-8").replace("UNet2DConditionModel", "UNet9")
    index.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (missing(UNET), "unet: has no diffusion_pytorch_model.safetensors; fetch the base again"),
        (missing("unet/config.json"), "unet/config.json: is not there; fetch the base again"),
        (missing("text_encoder/config.json"), "text_encoder/config.json: is not there"),
        (holding("vae/config.json", "{"), "vae/config.json: is damaged ("),
        (holding("vae/config.json", "[]"), "vae/config.json: is damaged (it holds no table)"),
        (holding(f"{UNET}.index.json", "{}"), ""),  # of no effect beside the file itself
        (layers, "unet/config.json: makes no UNet2DConditionModel ("),
        (other_class, "model_index.json: names 'UNet9' for unet, which diffusers "),
    ],
)
def test_what_a_component_lacks_is_named(
    change: Callable[[Path], None], told: str, folder: Path
) -> None:
    change(folder)
    if told:
        assert refusal(folder).startswith(f"{folder}/{told}")
    else:
        load_base(folder, device="cpu", precision="fp32")


def test_an_index_that_is_none_is_refused(folder: Path) -> None:
    sharded(folder)
    (folder / f"{UNET}.index.json").write_text('{"weight_map": {"a": "../b"}}', encoding="utf-8")
    assert "lists '../b'; expected safetensors files beside it" in refusal(folder)
