import json

import pytest
import torch
import yaml
from diffusers import DiffusionPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer

from format_world import KINDS, drawn_with, picture, trained
from personae.errors import ArtifactError, UnsupportedError
from personae.formats.format import export_file, format_of, import_file
from personae.formats.ldm_names import autoencoder_name, open_clip_name, unet_name

PIPELINES = {
    "sd1": StableDiffusionPipeline,
    "sd2": StableDiffusionPipeline,
    "sdxl": StableDiffusionXLPipeline,
}


def tuned(base, size: float = 0.02, text: bool = True):
    return trained("dreambooth", base, size, text_encoder=text)


def from_file(kind, path, config):
    pipe = PIPELINES[kind].from_single_file(
        str(path), config=str(config), local_files_only=True, torch_dtype=torch.float32
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_diffusers_draws_an_exported_checkpoint_as_we_do(kind, pipes, bases, plain, tmp_path):
    base = bases[kind]
    artifact = tuned(base)
    ours = drawn_with(artifact, pipes[kind], base)
    assert (ours - plain[kind]).abs().max() > 0.01
    folder = export_file(artifact, "diffusers_folder", tmp_path / "mira", base)
    loaded = DiffusionPipeline.from_pretrained(str(folder), local_files_only=True)
    loaded.set_progress_bar_config(disable=True)
    assert (picture(loaded) - ours).abs().max() < 1e-4
    whole = export_file(artifact, "checkpoint_fp32", tmp_path / "mira", base)
    assert (picture(from_file(kind, whole, folder)) - ours).abs().max() < 1e-4
    half = export_file(artifact, "checkpoint", tmp_path / "half", base)
    assert (picture(from_file(kind, half, folder)) - ours).abs().max() < 5e-2


def test_a_lora_can_be_baked_into_a_checkpoint(pipes, bases, tmp_path):
    base = bases["sd1"]
    artifact = trained("lora", base, rank=2, alpha=1.0, targets="all", text_encoder=True)
    folder = export_file(artifact, "diffusers_folder", tmp_path / "mira", base)
    loaded = DiffusionPipeline.from_pretrained(str(folder), local_files_only=True)
    loaded.set_progress_bar_config(disable=True)
    ours = drawn_with(artifact, pipes["sd1"], base)
    assert (picture(loaded) - ours).abs().max() < 1e-4
    with pytest.raises(UnsupportedError, match="cannot carry hypernetwork"):
        export_file(trained("hypernetwork", base), "checkpoint", tmp_path / "no", base)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["checkpoint_fp32", "diffusers_folder"])
def test_what_was_learnt_comes_back_from_a_checkpoint(kind, name, bases, tmp_path):
    base = bases[kind]
    artifact = tuned(base)
    path = export_file(artifact, name, tmp_path / "mira", base)
    back = import_file(path, base)
    assert back.card.techniques[0].name == "dreambooth"
    assert set(back.tensors) == set(artifact.tensors)
    assert back.card.character == artifact.card.character
    for key, value in artifact.tensors.items():
        torch.testing.assert_close(back.tensors[key], value, rtol=0, atol=1e-6, msg=key)


def test_untouched_text_encoders_are_not_part_of_the_difference(bases, tmp_path):
    base = bases["sd1"]
    path = export_file(tuned(base, text=False), "checkpoint", tmp_path / "mira", base)
    back = import_file(path, base)
    assert not back.card.techniques[0].config["text_encoder"]
    assert all(key.startswith("dreambooth.deltas.denoiser.") for key in back.tensors)


def test_files_hold_the_marks_by_which_readers_know_the_kind(bases, tmp_path):
    def export(kind):
        return export_file(
            tuned(bases[kind], text=False), "checkpoint", tmp_path / kind, bases[kind]
        )

    one = load_file(export("sd1"))
    ids = one["cond_stage_model.transformer.text_model.embeddings.position_ids"]
    assert ids.dtype == torch.int64
    assert ids.tolist() == [list(range(77))]
    assert one["model.diffusion_model.input_blocks.0.0.weight"].dtype == torch.float16
    assert one["first_stage_model.decoder.mid.attn_1.q.weight"].dim() == 4
    assert not (tmp_path / "sd1.yaml").exists()
    two = load_file(export("sd2"))
    assert two["cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight"].shape[0] == 72
    assert "cond_stage_model.model.ln_final.weight" in two
    settings = yaml.safe_load((tmp_path / "sd2.yaml").read_text())
    assert settings["model"]["params"]["parameterization"] == "v"
    xl = load_file(export("sdxl"))
    assert "conditioner.embedders.0.transformer.text_model.final_layer_norm.weight" in xl
    projection = xl["conditioner.embedders.1.model.text_projection"]
    own = bases["sdxl"].towers[1].encoder.text_projection.weight
    assert torch.equal(projection, own.T.half())
    with safe_open(tmp_path / "sdxl.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata["modelspec.architecture"] == "stable-diffusion-xl-v1-base"
    assert "x" in metadata["modelspec.resolution"]


def test_folders_suit_readers_from_before_transformers_5(bases, tmp_path):
    base = bases["sdxl"]
    folder = export_file(tuned(base, text=False), "diffusers_folder", tmp_path / "mira", base)
    for part in ("text_encoder", "text_encoder_2"):
        names = load_file(folder / part / "model.safetensors")
        assert all(name.startswith(("text_model.", "text_projection")) for name in names)
    tokens = folder / "tokenizer"
    assert (tokens / "merges.txt").is_file()
    vocabulary = json.loads((tokens / "vocab.json").read_text())
    merges = [
        tuple(line.split())
        for line in (tokens / "merges.txt").read_text().splitlines()
        if not line.startswith("#")
    ]
    again = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)
    text = "a photo of the cat and the hat"
    assert again(text).input_ids == base.towers[0].tokenizer(text).input_ids


def test_names_of_the_original_code():
    two = [False, True, True]
    assert unet_name("down_blocks.1.attentions.0.proj_in.weight", 2, two) == (
        "input_blocks.4.1.proj_in.weight"
    )
    assert unet_name("up_blocks.0.upsamplers.0.conv.bias", 2, two) == "output_blocks.2.1.conv.bias"
    assert unet_name("up_blocks.1.upsamplers.0.conv.bias", 2, two) == "output_blocks.5.2.conv.bias"
    assert unet_name("mid_block.resnets.1.conv_shortcut.weight", 2, two) == (
        "middle_block.2.skip_connection.weight"
    )
    assert unet_name("time_embedding.linear_2.bias", 2, two) == "time_embed.2.bias"
    assert autoencoder_name("decoder.up_blocks.0.upsamplers.0.conv.weight", 4) == (
        "decoder.up.3.upsample.conv.weight"
    )
    assert (
        open_clip_name("encoder.layers.3.mlp.fc1.bias") == "transformer.resblocks.3.mlp.c_fc.bias"
    )


def test_a_checkpoint_that_is_the_base_holds_nothing_learnt(bases, tmp_path):
    base = bases["sd1"]
    nothing = trained("dreambooth", base, 0.0)
    path = export_file(nothing, "checkpoint", tmp_path / "base", base)
    with pytest.raises(ArtifactError, match="nothing was learnt"):
        import_file(path, base)


def test_a_checkpoint_of_another_kind_or_with_a_hole_is_refused(bases, tmp_path):
    path = export_file(tuned(bases["sd1"]), "checkpoint", tmp_path / "one", bases["sd1"])
    with pytest.raises(ArtifactError, match="another kind"):
        import_file(path, bases["sdxl"])
    tensors = load_file(path)
    del tensors["model.diffusion_model.middle_block.0.in_layers.0.weight"]
    save_file(tensors, path)
    with pytest.raises(ArtifactError, match="has no weight for"):
        import_file(path, bases["sd1"])
    assert format_of(path).name == "checkpoint"


def test_a_folder_that_is_there_is_not_overwritten(bases, tmp_path):
    (tmp_path / "mira").mkdir()
    with pytest.raises(ArtifactError, match="is there already"):
        export_file(tuned(bases["sd1"]), "diffusers_folder", tmp_path / "mira", bases["sd1"])
    with pytest.raises(ArtifactError, match="none of the formats"):
        import_file(tmp_path / "mira", bases["sd1"])
