"""Files in the forms other tools leave them: pickled, by halves, with alphas of any type."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from format_world import trained
from personae.artifacts.low_rank import updates_of
from personae.errors import ArtifactError, BaseError
from personae.formats.format import export_file, import_file
from personae.formats.tensor_file import read_header
from personae.models.weights.sources import checkpoint_keys

POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 3819\n"
)


@pytest.fixture(scope="module")
def lora(bases):
    return trained("lora", bases["sd1"], rank=2)


def same(one, two) -> None:
    first, second = updates_of(one), updates_of(two)
    assert set(first) == set(second)
    for layer, update in first.items():
        torch.testing.assert_close(update.delta(), second[layer].delta(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["kohya", "diffusers_lora"])
@pytest.mark.parametrize("ending", [".bin", ".pt", ".ckpt"])
def test_a_pickled_lora_is_read(name, ending, lora, bases, tmp_path):
    file = export_file(lora, name, tmp_path / "mira", bases["sd1"])
    pickled = tmp_path / f"pytorch_lora_weights{ending}"
    torch.save(load_file(file), pickled)
    same(import_file(pickled, bases["sd1"]), lora)


def test_a_file_of_peft_is_read_with_the_settings_beside_it(lora, bases, tmp_path):
    folder = export_file(lora, "peft", tmp_path / "mira", bases["sd1"])
    file = folder / "adapter_model.safetensors"
    same(import_file(file, bases["sd1"]), lora)
    torch.save(load_file(file), folder / "adapter_model.bin")
    file.unlink()
    for path in (folder, folder / "adapter_model.bin"):
        same(import_file(path, bases["sd1"]), lora)
    (folder / "adapter_config.json").unlink()
    with pytest.raises(ArtifactError, match=r"has no adapter_config\.json beside it"):
        import_file(folder / "adapter_model.bin", bases["sd1"])


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".safetensors"])
def test_a_git_lfs_pointer_is_told_as_such(suffix, bases, tmp_path):
    path = tmp_path / f"pointer{suffix}"
    path.write_text(POINTER)
    with pytest.raises(ArtifactError, match=r"a Git LFS pointer to a file of 3.8 kB; fetch that"):
        import_file(path, bases["sd1"])
    if suffix == ".safetensors":
        with pytest.raises(BaseError, match="a Git LFS pointer"):
            checkpoint_keys(path)


@pytest.mark.parametrize(
    "alpha",
    [
        torch.tensor(4),
        torch.tensor([4], dtype=torch.int32),
        torch.tensor(4.0, dtype=torch.float64),
        torch.tensor([[4.0]], dtype=torch.bfloat16),
        torch.tensor(4, dtype=torch.uint8),
    ],
    ids=str,
)
def test_an_alpha_may_have_any_type(alpha, lora, bases, tmp_path):
    file = export_file(lora, "kohya", tmp_path / "mira", bases["sd1"])
    tensors = load_file(file)
    plain = {n: torch.tensor(4.0) if n.endswith(".alpha") else v for n, v in tensors.items()}
    other = {n: alpha.clone() if n.endswith(".alpha") else v for n, v in tensors.items()}
    save_file(plain, tmp_path / "plain.safetensors")
    save_file(other, tmp_path / "other.safetensors")
    wanted, found = (
        import_file(tmp_path / f"{name}.safetensors", bases["sd1"]) for name in ("plain", "other")
    )
    same(found, wanted)


@pytest.mark.parametrize("key", ["r", "lora_alpha"])
def test_settings_of_peft_may_be_written_as_text(key, lora, bases, tmp_path):
    folder = export_file(lora, "peft", tmp_path / "mira", bases["sd1"])
    settings = json.loads((folder / "adapter_config.json").read_text())
    settings[key] = f"{float(settings[key])}"
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    same(import_file(folder, bases["sd1"]), lora)


@pytest.mark.parametrize(
    ("says", "phrase"),
    [
        ({"modelspec.trigger_phrase": "sks girl"}, "sks girl"),
        ({"ss_tag_frequency": {"10_mira woman": {"1girl": 90, "mira": 80}}}, "mira woman"),
        ({"ss_tag_frequency": {"img": {"1girl": 90, "a girl on a beach, smiling": 99}}}, "other"),
        ({"ss_dataset_dirs": {"4_mira_girl": {"n_repeats": 4}}}, "mira girl"),
        ({"ss_tag_frequency": {"4_mira": {"a": 1}, "2_juno": {"b": 1}}}, "other"),
        ({"ss_tag_frequency": [1]}, "other"),
        ({}, "other"),
    ],
)
def test_a_file_is_called_what_it_says_and_never_a_tag(says, phrase, lora, bases, tmp_path: Path):
    file = export_file(lora, "kohya", tmp_path / "mira", bases["sd1"])
    metadata = {k: v if isinstance(v, str) else json.dumps(v) for k, v in says.items()}
    save_file(load_file(file), tmp_path / "other.safetensors", metadata)
    artifact = import_file(tmp_path / "other.safetensors", bases["sd1"])
    assert artifact.card.character.phrase == phrase


@pytest.mark.parametrize(("name", "said"), [("checkpoint", "F16"), ("checkpoint_fp32", "F32")])
def test_a_checkpoint_is_noted_in_the_format_it_has(name, said, bases, tmp_path):
    artifact = trained("dreambooth", bases["sd1"])
    file = export_file(artifact, name, tmp_path / "mira", bases["sd1"])
    note = import_file(file, bases["sd1"]).card.notes["imported from"]
    assert f"checkpoint in one file, {said}" in note


def test_our_own_key_keeps_the_name_that_files_have(lora, bases, tmp_path):
    """Written in every release so far; a file of 2025 must tell its character in any other."""
    file = export_file(lora, "kohya", tmp_path / "mira", bases["sd1"])
    record = {"name": "mira", "class_noun": "woman", "phrase": "mira woman"}
    metadata = {"personae.character": json.dumps(record)}
    save_file(load_file(file), tmp_path / "other.safetensors", metadata)
    artifact = import_file(tmp_path / "other.safetensors", bases["sd1"])
    assert artifact.card.character.phrase == "mira woman"
    assert "personae.character" in read_header(file).metadata
