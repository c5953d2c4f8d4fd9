"""Bases whose denoiser lies in a single file, with the rest in a folder beside it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from personae.errors import BaseError
from personae.models.families.z_image import ZImage
from personae.models.load import load_base
from personae.models.toys import tiny_z_image
from tiny_world import prediction


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a diffusers folder of the tiny Z-Image."""
    path = tmp_path_factory.mktemp("bases") / "tiny"
    tiny_z_image().save_pretrained(path)
    return path


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """Return a folder beside `file` that has all but the transformer's weights."""
    path = tmp_path / "z"
    shutil.copytree(whole, path)
    (path / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    return path


@pytest.fixture
def file(folder: Path) -> Path:
    return folder.with_suffix(".safetensors")


def original(prefix: str = "") -> dict[str, Tensor]:
    """Return the transformer's weights as Z-Image's own code has them."""
    weights = tiny_z_image().transformer.state_dict()
    found = {}
    for name, value in weights.items():
        if name.endswith("attention.to_q.weight"):
            parts = [weights[name.replace("to_q", f"to_{part}")] for part in "qkv"]
            found[name.replace("to_q", "qkv")] = torch.cat(parts)
        elif not name.endswith(("to_k.weight", "to_v.weight")):
            name = name.replace("attention.to_out.0", "attention.out")
            name = name.replace("norm_q", "q_norm").replace("norm_k", "k_norm")
            name = name.replace("all_x_embedder.2-1", "x_embedder")
            found[name.replace("all_final_layer.2-1", "final_layer")] = value
    return {prefix + name: value for name, value in found.items()}


def refusal(file: Path) -> str:
    with pytest.raises(BaseError) as refused:
        load_base(file, device="cpu", precision="fp32")
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_a_file_under_original_names_is_the_same_base(prefix: str, file: Path) -> None:
    save_file(original(prefix), file)
    base, wanted = load_base(file, device="cpu", precision="fp32"), ZImage.tiny()[0]
    assert base.fingerprint == wanted.fingerprint
    assert torch.equal(prediction(base), prediction(wanted))


def test_a_file_under_the_names_of_diffusers_is_the_same_base(file: Path) -> None:
    save_file(tiny_z_image().transformer.state_dict(), file)
    base = load_base(file, device="cpu", precision="fp32")
    assert base.fingerprint == ZImage.tiny()[0].fingerprint


def test_a_file_without_the_other_parts_says_what_to_put_where(file: Path, folder: Path) -> None:
    save_file(original(), file)
    shutil.rmtree(folder)
    assert "put the other parts beside it as z/, a diffusers folder such as Tongyi" in refusal(file)


def test_a_folder_of_another_pipeline_beside_it_is_refused(file: Path, folder: Path) -> None:
    save_file(original(), file)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    assert "is of FluxPipeline, and z.safetensors needs" in refusal(file)


def test_a_weight_that_is_missing_is_named(file: Path) -> None:
    tensors = original()
    del tensors["layers.1.attention.qkv.weight"]
    save_file(tensors, file)
    assert "has no 'layers.1.attention.qkv.weight', which the base needs" in refusal(file)


def test_another_size_of_base_is_refused(file: Path) -> None:
    tensors = original()
    tensors["layers.1.attention.qkv.weight"] = torch.zeros(90, 32)
    save_file(tensors, file)
    assert "'layers.1.attention.qkv.weight' has another shape" in refusal(file)


def test_weights_quantised_for_drawing_are_refused(file: Path) -> None:
    tensors = original()
    name = "layers.1.attention.qkv.weight"
    tensors[name] = tensors[name].to(torch.float8_e4m3fn)
    save_file(tensors, file)
    assert "weights in the format F8_E4M3, quantised for drawing" in refusal(file)


def test_a_gguf_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "z.gguf").write_bytes(b"GGUF")
    assert "is a GGUF file, quantised for drawing" in refusal(tmp_path / "z.gguf")


def test_a_file_of_lumina_is_not_taken_for_it(file: Path) -> None:
    save_file(
        {
            "layers.0.adaLN_modulation.1.weight": torch.ones(1),
            "cap_embedder.0.weight": torch.ones(1),
        },
        file,
    )
    assert not ZImage.recognises(file)
