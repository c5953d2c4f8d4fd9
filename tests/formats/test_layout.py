"""What the formats do with a base that other tools know, or do not."""

import dataclasses

import pytest

from format_world import trained
from personae.errors import UnsupportedError
from personae.formats.format import export_file
from personae.formats.lora.names import diffusers_name, index_of_names
from personae.models.families.stable_diffusion import StableDiffusion
from personae.models.family import Family

NAMED = {
    "kohya": "lora",
    "checkpoint": "lora",
    "diffusers_folder": "dreambooth",
    "embedding": "textual_inversion",
    "hypernetwork": "hypernetwork",
}


class Unknown(StableDiffusion):
    """A family that other tools keep in no file of these formats, with another denoiser."""

    denoiser_component = "transformer"
    file_layouts = ()
    file_layout = Family.file_layout


def unknown(base: Family) -> Unknown:
    return Unknown(
        **{each.name: getattr(base, each.name) for each in dataclasses.fields(base) if each.init}
    )


@pytest.mark.parametrize(("format_", "technique"), NAMED.items())
def test_a_base_without_such_files_is_refused_in_one_line(format_, technique, bases, tmp_path):
    artifact = trained(technique, bases["sd1"])
    wanted = r"base 'tiny-sd1' .* has no files .* kinds sd1, sd2, sdxl"
    with pytest.raises(UnsupportedError, match=wanted) as refused:
        export_file(artifact, format_, tmp_path / "file", unknown(bases["sd1"]))
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_layers_in_dotted_files_bear_the_name_of_the_family_s_denoiser(bases):
    layer = "denoiser.mid_block.attentions.0.proj_in"
    name = diffusers_name(layer, Unknown)
    assert name == "transformer.mid_block.attentions.0.proj_in"
    assert (
        diffusers_name("text_encoder.layers.0.mlp.fc1", Unknown) == "text_encoder.layers.0.mlp.fc1"
    )
    index = index_of_names(unknown(bases["sd1"]))
    assert index[name] == (layer,)
    assert not any(spelling.startswith("unet.") for spelling in index)


def test_two_text_encoders_have_the_names_of_their_folders(bases):
    base = bases["sdxl"]
    assert list(base.components.all) == ["unet", "vae", "text_encoder", "text_encoder_2"]
    assert list(base.networks) == ["denoiser", "text_encoder", "text_encoder1"]
