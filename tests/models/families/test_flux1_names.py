"""FLUX.1's own names in LoRA files: fused rows of two kinds of blocks, and diffusers."""

from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor

from format_world import trained
from lora_dialects import DIALECTS, deltas, same
from personae.artifacts.artifact import Artifact
from personae.artifacts.low_rank import updates_of
from personae.core.devices import HOST
from personae.formats.format import export_file, import_file
from personae.models.families.flux1 import Flux1
from personae.models.toy_flux1 import tiny_flux

QKV = ("to_q", "to_k", "to_v")
ADDED = ("add_q_proj", "add_k_proj", "add_v_proj")


@pytest.fixture(scope="module")
def base() -> Flux1:
    return Flux1.tiny()[0]


@pytest.fixture(scope="module")
def lora(base: Flux1) -> Artifact:
    return trained("lora", base, rank=2, alpha=1.0, targets="attention+feed_forward+modulation")


def picture(pipe: FluxPipeline) -> Tensor:
    pipe.set_progress_bar_config(disable=True)
    return pipe(
        "a cat",
        height=64,
        width=64,
        num_inference_steps=2,
        max_sequence_length=32,
        generator=torch.Generator().manual_seed(3),
        output_type="latent",
    ).images


def fused(lora: Artifact) -> dict[str, Tensor]:
    """Return {name in FLUX.1's own code: change}, from the structure of its two blocks."""
    of = {name.removeprefix("denoiser."): delta for name, delta in deltas(lora).items()}
    double, single = "transformer_blocks.0", "single_transformer_blocks.0"
    wanted = {
        "double_blocks.0.img_attn.qkv": [f"{double}.attn.{each}" for each in QKV],
        "double_blocks.0.txt_attn.qkv": [f"{double}.attn.{each}" for each in ADDED],
        "double_blocks.0.img_attn.proj": [f"{double}.attn.to_out.0"],
        "double_blocks.0.txt_attn.proj": [f"{double}.attn.to_add_out"],
        "double_blocks.0.img_mlp.0": [f"{double}.ff.net.0.proj"],
        "double_blocks.0.img_mlp.2": [f"{double}.ff.net.2"],
        "double_blocks.0.txt_mlp.0": [f"{double}.ff_context.net.0.proj"],
        "double_blocks.0.txt_mlp.2": [f"{double}.ff_context.net.2"],
        "double_blocks.0.img_mod.lin": [f"{double}.norm1.linear"],
        "double_blocks.0.txt_mod.lin": [f"{double}.norm1_context.linear"],
        "single_blocks.0.linear1": [*(f"{single}.attn.{e}" for e in QKV), f"{single}.proj_mlp"],
        "single_blocks.0.linear2": [f"{single}.proj_out"],
        "single_blocks.0.modulation.lin": [f"{single}.norm.linear"],
    }
    return {name: torch.cat([of[part] for part in parts]) for name, parts in wanted.items()}


@pytest.mark.parametrize("tool", DIALECTS)
def test_the_names_of_other_trainers_are_read(
    tool: str, lora: Artifact, base: Flux1, tmp_path: Path
) -> None:
    save_file(DIALECTS[tool](lora), tmp_path / "theirs.safetensors")
    same(import_file(tmp_path / "theirs.safetensors", base), lora)


def test_a_file_of_kohyas_scripts_is_read(lora: Artifact, base: Flux1, tmp_path: Path) -> None:
    tensors = {}
    for name, delta in fused(lora).items():
        up, values, down = torch.linalg.svd(delta, full_matrices=False)
        stem = "lora_unet_" + name.replace(".", "_")
        tensors[f"{stem}.lora_up.weight"] = (up * values).contiguous()
        tensors[f"{stem}.lora_down.weight"] = down.contiguous()
        tensors[f"{stem}.alpha"] = torch.tensor(float(len(down)))
    save_file(tensors, tmp_path / "theirs.safetensors")
    same(import_file(tmp_path / "theirs.safetensors", base), lora)


def test_original_names_are_those_of_the_original_code_and_nothing_is_left_out(
    lora: Artifact, base: Flux1, tmp_path: Path
) -> None:
    path = export_file(lora, "original_lora", tmp_path / "mira", base)
    tensors, wanted = load_file(path), fused(lora)
    stems = {key.rsplit(".lora_", 1)[0] for key in tensors}
    assert stems == {f"diffusion_model.{name}" for name in wanted}
    for name, delta in wanted.items():
        down, up = (tensors[f"diffusion_model.{name}.lora_{part}.weight"] for part in "AB")
        torch.testing.assert_close(up.float() @ down.float(), delta, rtol=0, atol=1e-6)
    same(import_file(path, base), lora)


@pytest.mark.parametrize("text_encoder", [False, True])
def test_diffusers_draws_the_default_file_as_we_do(text_encoder: bool, tmp_path: Path) -> None:
    pipe = tiny_flux(guidance=True)
    plain = picture(pipe)
    base = Flux1.from_pipeline(pipe, "tiny-flux1", HOST, torch.float32)
    lora = trained("lora", base, rank=2, text_encoder=text_encoder)
    networks = {layer.split(".")[0] for layer in updates_of(lora)}
    assert networks == (
        {"denoiser", "text_encoder", "text_encoder1"} if text_encoder else {"denoiser"}
    )
    (technique,) = lora.build(base)
    technique.inject()
    ours = picture(pipe)
    technique.eject()
    path = export_file(lora, "diffusers_lora", tmp_path / "mira")
    other = tiny_flux(guidance=True)
    other.load_lora_weights(str(tmp_path), weight_name=path.name, local_files_only=True)
    assert (ours - plain).abs().max() > 0.01
    if not text_encoder:  # diffusers adapts CLIP alone, and leaves out T5 without an error
        assert (picture(other) - ours).abs().max() < 1e-4
