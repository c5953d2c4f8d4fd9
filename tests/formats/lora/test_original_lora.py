"""LoRA files for transformers, in the dialects of the trainers and readers people use."""

from pathlib import Path

import pytest
import torch
from diffusers import ZImagePipeline
from safetensors.torch import load_file, save_file
from torch import Tensor

from format_world import trained
from lora_dialects import DIALECTS, deltas, same, written_with
from personae.artifacts.artifact import Artifact
from personae.core.devices import HOST
from personae.errors import ArtifactError, UnsupportedError
from personae.formats.format import export_file, format_of, import_file
from personae.models.families.z_image import ZImage
from personae.models.toys import tiny_z_image

SETS = "attention+feed_forward+refiners+modulation"


@pytest.fixture(scope="module")
def base() -> ZImage:
    return ZImage.tiny()[0]


@pytest.fixture(scope="module")
def lora(base: ZImage) -> Artifact:
    return trained("lora", base, rank=2, alpha=1.0, targets=SETS)


def picture(pipe: ZImagePipeline) -> Tensor:
    pipe.set_progress_bar_config(disable=True)
    return pipe(
        "a cat",
        height=64,
        width=64,
        num_inference_steps=2,
        guidance_scale=2.0,
        generator=torch.Generator().manual_seed(3),
        output_type="latent",
    ).images


def fused_deltas(lora: Artifact) -> dict[str, Tensor]:
    """Return {name in Z-Image's own code: change}, from the structure of its blocks."""
    of = {name.removeprefix("denoiser."): delta for name, delta in deltas(lora).items()}
    blocks = {name.rsplit(".attention.", 1)[0] for name in of if name.endswith("to_q")}
    found = {name: delta for name, delta in of.items() if ".attention." not in name}
    for block in blocks:
        parts = [of[f"{block}.attention.to_{part}"] for part in "qkv"]
        found[f"{block}.attention.qkv"] = torch.cat(parts)
        found[f"{block}.attention.out"] = of[f"{block}.attention.to_out.0"]
    return {
        name.replace("all_final_layer.2-1", "final_layer"): delta for name, delta in found.items()
    }


@pytest.mark.parametrize("tool", DIALECTS)
def test_the_names_of_other_trainers_are_read(
    tool: str, lora: Artifact, base: ZImage, tmp_path: Path
) -> None:
    save_file(DIALECTS[tool](lora), tmp_path / "theirs.safetensors")
    same(import_file(tmp_path / "theirs.safetensors", base), lora)


@pytest.mark.parametrize("form", ["lora", "difference"])
@pytest.mark.parametrize("start", ["diffusion_model.", "lora_unet_"])
def test_an_update_of_a_fused_matrix_is_given_to_its_parts(
    start: str, form: str, lora: Artifact, base: ZImage, tmp_path: Path
) -> None:
    tensors = {}
    for name, delta in fused_deltas(lora).items():
        spelt = name.replace(".", "_") if start.endswith("_") else name
        if form == "difference":
            tensors[f"{start}{spelt}.diff"] = delta
            continue
        up, values, down = torch.linalg.svd(delta, full_matrices=False)
        tensors[f"{start}{spelt}.lora_up.weight"] = (up * values).contiguous()
        tensors[f"{start}{spelt}.lora_down.weight"] = down.contiguous()
        tensors[f"{start}{spelt}.alpha"] = torch.tensor(float(len(down)))
    save_file(tensors, tmp_path / "theirs.safetensors")
    same(import_file(tmp_path / "theirs.safetensors", base), lora)


def test_diffusers_draws_the_default_file_as_we_do(lora: Artifact, tmp_path: Path) -> None:
    pipe = tiny_z_image()
    plain = picture(pipe)
    own = ZImage.from_pipeline(pipe, "tiny-z-image", HOST, torch.float32)
    (technique,) = lora.build(own)
    technique.inject()
    ours = picture(pipe)
    path = export_file(lora, "diffusers_lora", tmp_path / "mira")
    other = tiny_z_image()
    other.load_lora_weights(str(tmp_path), weight_name=path.name, local_files_only=True)
    assert (ours - plain).abs().max() > 0.01
    assert (picture(other) - ours).abs().max() < 1e-4


def test_original_names_are_those_of_the_original_code_and_nothing_is_left_out(
    lora: Artifact, base: ZImage, tmp_path: Path
) -> None:
    path = export_file(lora, "original_lora", tmp_path / "mira", base)
    tensors = load_file(path)
    stems = {key.rsplit(".lora_", 1)[0] for key in tensors}
    wanted = fused_deltas(lora)
    assert stems == {f"diffusion_model.{name}" for name in wanted}
    for name, delta in wanted.items():
        down, up = (tensors[f"diffusion_model.{name}.lora_{part}.weight"] for part in "AB")
        torch.testing.assert_close(up.float() @ down.float(), delta, rtol=0, atol=1e-6)
    assert format_of(path).name == "original_lora"
    same(import_file(path, base), lora)


def test_what_the_original_names_cannot_say_is_refused(base: ZImage, tmp_path: Path) -> None:
    lora = trained("lora", base, rank=2, text_encoder=True)
    with pytest.raises(ArtifactError, match="the denoiser alone; export as diffusers_lora"):
        export_file(lora, "original_lora", tmp_path / "mira", base)
    assert not list(tmp_path.iterdir())


def test_a_base_whose_original_names_are_not_known_has_no_such_files(
    bases: dict, tmp_path: Path
) -> None:
    lora = trained("lora", bases["sd1"], rank=2)
    with pytest.raises(UnsupportedError, match="cannot carry a lora for a base of family"):
        export_file(lora, "original_lora", tmp_path / "mira", bases["sd1"])


def test_a_layer_that_is_there_alone_and_in_a_matrix_is_refused(
    lora: Artifact, base: ZImage, tmp_path: Path
) -> None:
    tensors = written_with("diffusion_model.", False, lora)
    name = "diffusion_model.layers.0.attention.qkv"
    tensors[f"{name}.lora_A.weight"] = torch.ones(1, 32)
    tensors[f"{name}.lora_B.weight"] = torch.ones(96, 1)
    save_file(tensors, tmp_path / "theirs.safetensors")
    with pytest.raises(ArtifactError, match=r"holds 'denoiser\.layers\.0.*' twice"):
        import_file(tmp_path / "theirs.safetensors", base)
