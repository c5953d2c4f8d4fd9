"""The embedded base has a shape of its own; its files open in diffusers all the same."""

from __future__ import annotations

import pytest
import torch
from diffusers import StableDiffusionPipeline

from format_world import drawn_with, picture, trained
from personae.core.devices import HOST
from personae.formats.format import export_file, import_file
from personae.models.families.stable_diffusion import StableDiffusion
from personae.models.weights.sources import embedded_bases

pytestmark = pytest.mark.skipif(
    "toon" not in embedded_bases(), reason="this checkout has no embedded base"
)


def pipeline():
    pipe = StableDiffusionPipeline.from_pretrained(
        str(embedded_bases()["toon"]), torch_dtype=torch.float32, local_files_only=True
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def toon():
    pipe = pipeline()
    return pipe, StableDiffusion.from_pipeline(pipe, "toon", HOST, torch.float32)


@pytest.mark.parametrize("name", ["kohya", "diffusers_lora"])
def test_a_lora_on_toon_is_drawn_by_diffusers_as_by_us(name, toon, tmp_path):
    pipe, base = toon
    artifact = trained("lora", base, 0.05, rank=2, targets="all", text_encoder=True)
    path = export_file(artifact, name, tmp_path / "mira", base)
    other = pipeline()
    other.load_lora_weights(str(tmp_path), weight_name=path.name, local_files_only=True)
    ours = drawn_with(artifact, pipe, base)
    assert (ours - picture(pipe)).abs().max() > 0.01
    assert (picture(other) - ours).abs().max() < 1e-4
    back = import_file(path, base)
    assert all(torch.equal(back.tensors[key], value) for key, value in artifact.tensors.items())


@pytest.mark.filterwarnings("ignore")
def test_a_dreambooth_on_toon_is_drawn_from_a_folder_and_a_single_file(toon, tmp_path):
    pipe, base = toon
    artifact = trained("dreambooth", base, 0.003, text_encoder=True)
    ours = drawn_with(artifact, pipe, base)
    folder = export_file(artifact, "diffusers_folder", tmp_path / "mira", base)
    whole = export_file(artifact, "checkpoint_fp32", tmp_path / "mira", base)
    local = {"local_files_only": True}
    for other in (
        StableDiffusionPipeline.from_pretrained(str(folder), **local),
        StableDiffusionPipeline.from_single_file(str(whole), config=str(folder), **local),
    ):
        other.set_progress_bar_config(disable=True)
        assert (picture(other) - ours).abs().max() < 1e-4


def test_a_peft_folder_on_toon_computes_as_we_do(toon, tmp_path):
    from peft import PeftModel

    pipe, base = toon
    artifact = trained("lora", base, 0.05, rank=2, targets="attention")
    ours = drawn_with(artifact, pipe, base)
    folder = export_file(artifact, "peft", tmp_path / "mira", base)
    other = pipeline()
    other.unet = PeftModel.from_pretrained(other.unet, str(folder)).base_model.model
    assert (picture(other) - ours).abs().max() < 1e-4


@pytest.mark.parametrize("name", ["embedding", "a1111_embedding", "diffusers_embedding"])
def test_an_embedding_on_toon_is_drawn_by_diffusers_as_by_us(name, toon, tmp_path):
    pipe, base = toon
    settings = {"num_vectors": 3, "placeholder": "<mira>", "initializer_words": "girl"}
    artifact = trained("textual_inversion", base, 0.05, **settings)
    path = export_file(artifact, name, tmp_path / "mira", base)
    other = pipeline()
    other.load_textual_inversion(
        str(tmp_path), weight_name=path.name, token="<mira>", local_files_only=True
    )
    (technique,) = artifact.build(base)
    technique.inject()
    embeds = base.encode_text(["<mira> in a hat", ""]).embeds
    technique.eject()
    drawing = {
        "num_inference_steps": 2,
        "guidance_scale": 3.0,
        "height": 64,
        "width": 64,
        "output_type": "latent",
    }
    ours = pipe(
        prompt_embeds=embeds[:1],
        negative_prompt_embeds=embeds[1:],
        generator=torch.Generator().manual_seed(3),
        **drawing,
    ).images
    theirs = other("<mira> in a hat", generator=torch.Generator().manual_seed(3), **drawing).images
    assert (theirs - ours).abs().max() < 1e-4
