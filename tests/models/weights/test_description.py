"""What a base is, told without loading it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from personae.core.tensor_header import read_tensor_header
from personae.errors import BaseError
from personae.models.load import load_base
from personae.models.toys import tiny_stable_diffusion
from personae.models.weights.description import describe_base


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_stable_diffusion(1).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def test_the_size_of_a_base_is_read_from_its_headers(folder: Path) -> None:
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    numbers = sum(tensor.numel() for tensor in load_file(file).values())
    assert read_tensor_header(file).numel == numbers
    about = describe_base(folder)
    assert about.kind == "StableDiffusionPipeline"
    assert about.resolution == load_base(folder, device="cpu").resolution
    assert about.parameters > numbers


@pytest.mark.parametrize(
    ("part", "size", "wanted"),
    [("unet", 16, 128), ("transformer", 16, 128), ("transformer", None, 64)],
)
def test_the_resolution_is_told_whatever_the_denoiser_is_called(
    part: str, size: int | None, wanted: int, folder: Path
) -> None:
    """A transformer may name no size; then it is that of the autoencoder, in pixels."""
    (folder / "unet").rename(folder / part)
    config = folder / part / "config.json"
    changed = json.loads(config.read_text()) | {"sample_size": size}
    if size is None:
        del changed["sample_size"]
    config.write_text(json.dumps(changed))
    assert json.loads((folder / "vae" / "config.json").read_text())["sample_size"] == 64
    assert describe_base(folder).resolution == wanted


def test_the_advice_of_a_base_is_read(folder: Path) -> None:
    assert describe_base(folder).recommended == {}
    (folder / "personae.toml").write_text("[recommended.lora]\nlearning_rate = 0.002\n")
    assert describe_base(folder).recommended == {"lora": {"learning_rate": 0.002}}


@pytest.mark.parametrize("file", ["unet/config.json", "unet/diffusion_pytorch_model.safetensors"])
@pytest.mark.parametrize("content", [b"", b"[]", b"\x02\0\0\0\0\0\0\0[]", b"\xff" * 9])
def test_a_damaged_base_is_refused(file: str, content: bytes, folder: Path) -> None:
    (folder / file).write_bytes(content)
    with pytest.raises(BaseError, match="is damaged"):
        describe_base(folder)


def test_what_is_no_base_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BaseError, match=r"no model_index\.json"):
        describe_base(tmp_path)
