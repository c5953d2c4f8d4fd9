"""What readers of single files look for and no network computes with; folders in several parts."""

import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from format_world import draw, trained
from personae.errors import ArtifactError
from personae.formats.checkpoints.ldm_places import places
from personae.formats.checkpoints.single_file import VIT_H_LAYERS, _marks, _open_clip_marks
from personae.formats.format import export_file, import_file
from personae.formats.layout import layout_of


class Encoder:
    """Weights of a text encoder with as many layers as diffusers' Stable Diffusion 2."""

    def __init__(self, layers: int) -> None:
        parts = [f"self_attn.{p}_proj" for p in "qkv"] + [
            "self_attn.out_proj",
            "mlp.fc1",
            "mlp.fc2",
        ]
        self.values = {
            f"encoder.layers.{i}.{part}.{kind}": draw(4, 4, seed=i) if kind == "weight" else draw(4)
            for i in range(layers)
            for part in (*parts, "layer_norm1", "layer_norm2")
            for kind in ("weight", "bias")
        }
        tower = SimpleNamespace(embedding=SimpleNamespace(embedding_dim=4))
        self.base = SimpleNamespace(towers=[tower])

    def weights(self, _: str):
        yield from self.values.items()


@pytest.mark.parametrize(("layers", "copied"), [(23, True), (24, False), (2, False)])
def test_the_last_layer_of_stable_diffusion_2_is_made_up_where_it_is_missing(layers, copied, bases):
    encoder = Encoder(layers)
    base = SimpleNamespace(
        denoiser=bases["sd2"].denoiser,
        networks={"text_encoder": SimpleNamespace(state_dict=lambda: encoder.values)},
    )
    where = places(base, layout_of(bases["sd2"]))
    prefix = "cond_stage_model.model."
    marks = dict(_open_clip_marks(0, prefix, where, encoder))
    stem = f"{prefix}transformer.resblocks.{VIT_H_LAYERS - 1}."
    made = {name.removeprefix(stem): value for name, value in marks.items() if stem in name}
    assert bool(made) == copied
    if copied:
        own = encoder.values
        assert len(made) == 12
        assert torch.equal(made["ln_1.weight"], own["encoder.layers.22.layer_norm1.weight"])
        joined = torch.cat([own[f"encoder.layers.22.self_attn.{p}_proj.weight"] for p in "qkv"])
        assert torch.equal(made["attn.in_proj_weight"], joined)
    assert marks[f"{prefix}text_projection"].shape == (4, 4)
    assert marks[f"{prefix}logit_scale"].item() == pytest.approx(4.6055)


@pytest.mark.parametrize("zero_snr", [False, True])
def test_an_xl_that_predicts_v_is_marked_for_comfyui(zero_snr, bases):
    base = bases["sdxl"]
    settings = dict(base.scheduler_config)
    base.scheduler_config = settings | {
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": zero_snr,
    }
    try:
        layout = layout_of(base)
        baked = SimpleNamespace(
            base=base, weights=lambda network: base.networks[network].state_dict().items()
        )
        marks = dict(_marks(places(base, layout), base, layout, baked))
    finally:
        base.scheduler_config = settings
    assert layout.v_prediction
    assert marks["v_pred"].numel() == 0
    assert ("ztsnr" in marks) == zero_snr


def split_into_parts(folder, stem: str, count: int = 3):
    """Rewrites a component as diffusers keeps large ones, and returns the index."""
    whole = folder / f"{stem}.safetensors"
    tensors, listed = load_file(whole), {}
    for part in range(count):
        name = f"{stem}-{part + 1:05d}-of-{count:05d}.safetensors"
        mine = {key: tensors[key] for key in sorted(tensors)[part::count]}
        save_file(mine, folder / name)
        listed |= dict.fromkeys(mine, name)
    whole.unlink()
    index = folder / f"{stem}.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": listed}))
    return index


@pytest.fixture
def parted(bases, tmp_path):
    artifact = trained("dreambooth", bases["sd1"], 0.02, text_encoder=True)
    folder = export_file(artifact, "diffusers_folder", tmp_path / "mira", bases["sd1"])
    split_into_parts(folder / "text_encoder", "model", 2)
    return artifact, folder, split_into_parts(folder / "unet", "diffusion_pytorch_model")


def test_a_folder_in_several_parts_is_read_as_a_whole_one(parted, bases):
    artifact, folder, _ = parted
    back = import_file(folder, bases["sd1"])
    assert set(back.tensors) == set(artifact.tensors)
    for key, value in artifact.tensors.items():
        torch.testing.assert_close(back.tensors[key], value, rtol=0, atol=1e-6, msg=key)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda index: index.write_text("{"), "no index of weights"),
        (lambda index: index.write_text('{"weight_map": {"a": ["b"]}}'), "no index of weights"),
        (lambda index: index.write_text('{"weight_map": {}}'), "lists 0 files"),
        (lambda index: index.write_text('{"weight_map": {"a": "../x.safetensors"}}'), "beside it"),
        (lambda index: index.write_text('{"weight_map": {"a": "x.bin"}}'), "beside it"),
        (lambda index: sorted(index.parent.glob("*00002-of*"))[0].unlink(), "not there"),
        (
            lambda index: index.write_text(index.read_text().replace("conv_in.bias", "odd.bias")),
            "does not",
        ),
    ],
)
def test_an_index_that_does_not_fit_its_files_is_refused(change, reason, parted, bases):
    _, folder, index = parted
    change(index)
    with pytest.raises(ArtifactError, match=reason) as caught:
        import_file(folder, bases["sd1"])
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
