import hashlib
import json
import math

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from format_world import KINDS, draw, drawn_with, picture, trained
from personae.artifacts.artifact import Artifact, record_of
from personae.artifacts.card import CharacterRecord
from personae.artifacts.low_rank import LowRankUpdate, lora_artifact, updates_of
from personae.errors import ArtifactError, UnsupportedError
from personae.formats.format import export_file, format_of, import_file
from personae.formats.layout import layout_of
from personae.formats.lora.names import kohya_name

SETTINGS = {"rank": 2, "targets": "all", "text_encoder": True}


def everything(base, ranks=(2,), scales=(1.0,)) -> Artifact:
    """An update of every layer that kohya's scripts and LyCORIS adapt, and of the outer ones."""
    generator = torch.Generator().manual_seed(1)
    updates = {}
    for i, (name, layer) in enumerate(base.layers().items()):
        if name.endswith("text_projection"):
            continue
        most = min(len(layer.weight), layer.weight[0].numel())
        rank = min(ranks[i % len(ranks)], most)
        down = torch.randn(rank, *layer.weight.shape[1:], generator=generator) * 0.2
        up = torch.randn(len(layer.weight), rank, generator=generator) * 0.2
        up = up.reshape(*up.shape, *(1 for _ in down.shape[2:]))
        updates[name] = LowRankUpdate(down, up, scales[i % len(scales)])
    character = CharacterRecord(name="mira", class_noun="cat", phrase="mira cat")
    return lora_artifact(updates, record_of(base), character=character)


def same_updates(a: Artifact, b: Artifact, tolerance: float = 0.0) -> None:
    first, second = updates_of(a), updates_of(b)
    assert set(first) == set(second)
    for layer, update in first.items():
        torch.testing.assert_close(
            update.delta(), second[layer].delta(), rtol=0, atol=tolerance, msg=layer
        )


@pytest.mark.parametrize(
    ("kind", "name", "alpha"),
    [
        ("sd1", "kohya", None),
        ("sd2", "kohya", 1.0),
        ("sdxl", "kohya", None),
        ("sd1", "diffusers_lora", 1.0),
        ("sd2", "diffusers_lora", None),
        ("sdxl", "diffusers_lora", 1.0),
    ],
)
def test_diffusers_draws_an_exported_lora_as_we_do(
    kind, name, alpha, pipes, bases, plain, fresh_pipeline, tmp_path
):
    artifact = trained("lora", bases[kind], alpha=alpha, **SETTINGS)
    ours = drawn_with(artifact, pipes[kind], bases[kind])
    path = export_file(artifact, name, tmp_path / "mira.safetensors", bases[kind])
    other = fresh_pipeline(kind)
    other.load_lora_weights(str(tmp_path), weight_name=path.name, local_files_only=True)
    assert (ours - plain[kind]).abs().max() > 0.01
    assert (picture(other) - ours).abs().max() < 1e-4
    if alpha is None:
        other.set_adapters(other.get_active_adapters(), [0.5])
        halved = updates_of(artifact)
        halved = {k: LowRankUpdate(u.down, u.up, 0.5 * u.scale) for k, u in halved.items()}
        card = artifact.card
        half = lora_artifact(halved, card.base, character=card.character)
        assert (picture(other) - drawn_with(half, pipes[kind], bases[kind])).abs().max() < 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_every_layer_with_its_own_rank_and_scale_reaches_diffusers(
    kind, pipes, bases, fresh_pipeline, tmp_path
):
    artifact = everything(bases[kind], ranks=(1, 2, 4), scales=(1.0, 0.5, 0.7))
    ours = drawn_with(artifact, pipes[kind], bases[kind])
    path = export_file(artifact, "kohya", tmp_path / "mira.safetensors", bases[kind])
    alphas = {v.item() for k, v in load_file(path).items() if k.endswith(".alpha")}
    assert len(alphas) == 1
    other = fresh_pipeline(kind)
    other.load_lora_weights(str(tmp_path), weight_name=path.name, local_files_only=True)
    assert (picture(other) - ours).abs().max() < 1e-4
    same_updates(import_file(path, bases[kind]), artifact, 1e-6)


@pytest.mark.filterwarnings("ignore:.*alpha_pattern.*:RuntimeWarning")
def test_alphas_that_differ_per_layer_are_read_right_though_diffusers_does_not(
    pipes, bases, fresh_pipeline, tmp_path
):
    """Pins diffusers' fault, so that a release which mends it is noticed."""
    base, pipe = bases["sd1"], pipes["sd1"]
    artifact = everything(base, scales=(1.0, 0.25, 3.0))
    updates, tensors = updates_of(artifact), {}
    for i, (layer, update) in enumerate(updates.items()):
        name, factor = kohya_name(layer, base, layout_of(base)), (1.0, 0.25, 3.0)[i % 3]
        tensors[f"{name}.lora_down.weight"] = update.down
        tensors[f"{name}.lora_up.weight"] = update.up / factor
        tensors[f"{name}.alpha"] = torch.tensor(factor * update.rank)
    save_file(tensors, tmp_path / "mixed.safetensors")
    same_updates(import_file(tmp_path / "mixed.safetensors", base), artifact, 1e-5)
    other = fresh_pipeline("sd1")
    other.load_lora_weights(str(tmp_path), weight_name="mixed.safetensors", local_files_only=True)
    assert (picture(other) - drawn_with(artifact, pipe, base)).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["kohya", "diffusers_lora", "peft"])
def test_an_exported_lora_comes_back_with_the_same_tensors(kind, name, bases, tmp_path):
    artifact = trained("lora", bases[kind], **SETTINGS)
    path = export_file(artifact, name, tmp_path / "mira", bases[kind])
    assert format_of(path).name == name
    back = import_file(path, bases[kind])
    assert set(back.tensors) == set(artifact.tensors)
    for key, value in artifact.tensors.items():
        assert torch.equal(back.tensors[key], value), key
    assert back.card.character.phrase == "mira cat"
    again = Artifact.load(back.save(tmp_path / "again.safetensors"))
    assert again.build(bases[kind])


def test_peft_itself_applies_the_exported_folder_as_we_do(bases, fresh_pipeline, tmp_path):
    from peft import PeftModel

    base = bases["sd1"]
    artifact = trained("lora", base, rank=2, alpha=3.0, targets="attention")
    export_file(artifact, "peft", tmp_path / "adapter")
    unet = fresh_pipeline("sd1").unet
    model = PeftModel.from_pretrained(unet, str(tmp_path / "adapter")).base_model.model
    noisy, states = draw(1, 4, 8, 8), draw(1, 7, 24)
    theirs = model(noisy, 500, encoder_hidden_states=states).sample
    technique = artifact.build(base)[0].inject()
    ours = base.denoiser(noisy, 500, encoder_hidden_states=states).sample
    technique.eject()
    assert (theirs - ours).abs().max() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_text_encoder_names_hold_text_model_in_every_format(kind, bases, tmp_path):
    artifact = trained("lora", bases[kind], **SETTINGS)
    for name, mark in (("kohya", "text_model_encoder"), ("diffusers_lora", "text_model.encoder")):
        path = export_file(artifact, name, tmp_path / name, bases[kind])
        text = [key for key in load_file(path) if key.startswith(("lora_te", "text_encoder"))]
        assert text
        assert all(mark in key for key in text)
    prefixes = {key.split("text_model")[0] for key in load_file(tmp_path / "kohya.safetensors")}
    prefixes = {prefix for prefix in prefixes if prefix.startswith("lora_te")}
    assert prefixes == ({"lora_te1_", "lora_te2_"} if kind == "sdxl" else {"lora_te_"})


def test_names_of_kohya_files_are_those_of_the_specification(bases, tmp_path):
    artifact = trained("lora", bases["sdxl"], **SETTINGS)
    names = load_file(export_file(artifact, "kohya", tmp_path / "xl", bases["sdxl"]))
    assert "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.lora_down.weight" in names
    assert "lora_unet_output_blocks_2_2_conv.lora_up.weight" in names
    assert "lora_unet_input_blocks_3_0_op.alpha" in names
    assert "lora_unet_middle_block_2_in_layers_2.alpha" in names
    artifact = trained("lora", bases["sd1"], **SETTINGS)
    names = load_file(export_file(artifact, "kohya", tmp_path / "one", bases["sd1"]))
    assert "lora_unet_up_blocks_1_attentions_0_transformer_blocks_0_attn2_to_out_0.alpha" in names
    assert "lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_up.weight" in names


def test_an_openclip_encoder_is_never_adapted_by_half(bases, tmp_path):
    base = bases["sd2"]
    only_query = {
        "text_encoder.encoder.layers.0.self_attn.q_proj": LowRankUpdate(
            torch.ones(1, 24), torch.ones(24, 1)
        )
    }
    whole = trained("lora", base, rank=1)
    artifact = lora_artifact(only_query, whole.card.base, character=whole.card.character)
    names = load_file(export_file(artifact, "kohya", tmp_path / "half", base))
    for part in ("q", "k", "v", "out"):
        name = f"lora_te_text_model_encoder_layers_0_self_attn_{part}_proj.lora_up.weight"
        assert (names[name] == 0).all() == (part != "q")


@pytest.mark.parametrize(
    ("kind", "version", "two"),
    [("sd1", "sd_v1", "False"), ("sd2", "sd_v2_v", "True"), ("sdxl", "sdxl_base_v1-0", "False")],
)
def test_metadata_says_what_readers_act_on(kind, version, two, bases, tmp_path):
    artifact = trained("lora", bases[kind], **SETTINGS)
    path = export_file(artifact, "kohya", tmp_path / "mira", bases[kind])
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert metadata["ss_base_model_version"] == version
    assert metadata["ss_v2"] == two
    assert metadata["ss_output_name"] == "mira"
    assert metadata["ss_network_module"] == "networks.lora"
    assert json.loads(metadata["ss_network_args"]) == {"conv_dim": "2", "conv_alpha": "2"}
    assert metadata["modelspec.architecture"].endswith("/lora")
    assert all(isinstance(value, str) for value in metadata.values())
    data = path.read_bytes()
    body = data[8 + int.from_bytes(data[:8], "little") :]
    assert metadata["sshs_model_hash"] == hashlib.sha256(body).hexdigest()
    assert metadata["modelspec.hash_sha256"] == "0x" + metadata["sshs_model_hash"]


def test_a_half_precision_file_draws_nearly_the_same(bases, pipes, fresh_pipeline, tmp_path):
    artifact = everything(bases["sd1"])
    halves = {k: LowRankUpdate(u.down.half(), u.up.half()) for k, u in updates_of(artifact).items()}
    small = lora_artifact(halves, artifact.card.base, character=artifact.card.character)
    path = export_file(small, "kohya", tmp_path / "half", bases["sd1"])
    assert load_file(path)["lora_unet_conv_in.lora_down.weight"].dtype == torch.float16
    back = import_file(path, bases["sd1"])
    ours = drawn_with(artifact, pipes["sd1"], bases["sd1"])
    assert (drawn_with(back, pipes["sd1"], bases["sd1"]) - ours).abs().max() < 2e-2


def generation(artifact: Artifact, which: int) -> dict:
    """The tensors of a LoRA under the names of diffusers' three generations."""
    tensors = {}
    for layer, update in updates_of(artifact).items():
        network, name = layer.split(".", 1)
        if network == "denoiser":
            old = name.replace(".to_out.0", ".to_out")
            head, _, last = old.rpartition(".")
            stem = {
                0: f"unet.{head}.processor.{last}_lora",
                1: f"unet.{name}.lora",
                2: f"unet.{name}",
            }[which]
        else:
            old = name.replace("q_proj", "to_q").replace("k_proj", "to_k")
            old = old.replace("v_proj", "to_v").replace("out_proj", "to_out")
            stem = {
                0: f"text_encoder.text_model.{old}_lora",
                1: f"text_encoder.text_model.{name}.lora_linear_layer",
                2: f"text_encoder.text_model.{name}",
            }[which]
        down, up = ("lora_A", "lora_B") if which == 2 else ("down", "up")
        tensors[f"{stem}.{down}.weight"] = update.down
        tensors[f"{stem}.{up}.weight"] = update.up
    return tensors


@pytest.mark.parametrize("which", [0, 1, 2])
def test_three_generations_of_diffusers_names_read_equal(which, bases, tmp_path):
    artifact = trained("lora", bases["sd1"], rank=2, text_encoder=True)
    path = tmp_path / "old.safetensors"
    save_file(generation(artifact, which), path)
    assert format_of(path).name == "diffusers_lora"
    same_updates(import_file(path, bases["sd1"]), artifact)


def test_alphas_in_adapter_metadata_are_honoured(bases, tmp_path):
    artifact = trained("lora", bases["sd1"], rank=2)
    path = tmp_path / "meta.safetensors"
    settings = json.dumps({"unet.lora_alpha": 1.0, "unet.r": 2})
    save_file(generation(artifact, 2), path, {"lora_adapter_metadata": settings})
    back, first = updates_of(import_file(path, bases["sd1"])), updates_of(artifact)
    for layer, update in first.items():
        assert torch.equal(back[layer].delta(), update.delta() / 2)


def one_layer_file(tmp_path, parts: dict, layer="lora_unet_mid_block_attentions_0_proj_in"):
    path = tmp_path / "one.safetensors"
    save_file({f"{layer}.{name}": value for name, value in parts.items()}, path)
    return path


LYCORIS_LAYER = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"


def only_delta(artifact: Artifact):
    (update,) = updates_of(artifact).values()
    return update.delta()


def test_loha_is_read_exactly(bases, tmp_path):
    a, b, c, d = (draw(48, 3), draw(3, 48), draw(48, 3, seed=1), draw(3, 48, seed=1))
    parts = {"hada_w1_a": a, "hada_w1_b": b, "hada_w2_a": c, "hada_w2_b": d}
    path = one_layer_file(tmp_path, parts | {"alpha": torch.tensor(1.5)}, LYCORIS_LAYER)
    artifact = import_file(path, bases["sd1"])
    torch.testing.assert_close(only_delta(artifact), (a @ b) * (c @ d) / 2, rtol=0, atol=1e-3)
    assert float(artifact.card.notes["kept energy"]) > 0.99999
    assert artifact.card.techniques[0].config["rank"] == 9


def test_lokr_is_read_exactly(bases, tmp_path):
    w1, a, b = draw(6, 4), draw(8, 2), draw(2, 12)
    parts = {"lokr_w1": w1, "lokr_w2_a": a, "lokr_w2_b": b, "alpha": torch.tensor(1.0)}
    artifact = import_file(one_layer_file(tmp_path, parts, LYCORIS_LAYER), bases["sd1"])
    torch.testing.assert_close(only_delta(artifact), torch.kron(w1, a @ b) / 2, rtol=0, atol=1e-4)


def test_a_full_difference_is_read_with_its_kept_energy(bases, tmp_path):
    diff = draw(48, 48)
    artifact = import_file(one_layer_file(tmp_path, {"diff": diff}, LYCORIS_LAYER), bases["sd1"])
    torch.testing.assert_close(only_delta(artifact), diff, rtol=0, atol=2e-2)
    assert "kept energy" in artifact.card.notes


@pytest.mark.parametrize("of_inputs", [True, False])
def test_dora_becomes_the_difference_it_makes(of_inputs, bases, tmp_path):
    base = bases["sd1"]
    weight = base.denoiser.mid_block.attentions[0].transformer_blocks[0].attn1.to_q.weight
    down, up = draw(2, 48), draw(48, 2)
    axis = 0 if of_inputs else 1
    magnitude = (draw(48).abs() + 0.5).reshape((1, 48) if of_inputs else (48, 1))
    moved = weight + up @ down
    wanted = magnitude * moved / moved.norm(dim=axis, keepdim=True) - weight
    parts = {"lora_down.weight": down, "lora_up.weight": up, "dora_scale": magnitude}
    path = one_layer_file(tmp_path, parts, LYCORIS_LAYER)
    torch.testing.assert_close(only_delta(import_file(path, base)), wanted, rtol=0, atol=1e-4)


def test_a_tucker_convolution_is_read_exactly(bases, tmp_path):
    layer = "lora_unet_mid_block_resnets_0_conv1"
    down, mid, up = draw(2, 48, 1, 1), draw(2, 2, 3, 3), draw(48, 2, 1, 1)
    parts = {"lora_down.weight": down, "lora_mid.weight": mid, "lora_up.weight": up}
    artifact = import_file(one_layer_file(tmp_path, parts, layer), bases["sd1"])
    x = draw(1, 48, 5, 5)
    conv = torch.nn.functional.conv2d
    wanted = conv(conv(conv(x, down), mid, padding=1), up)
    torch.testing.assert_close(conv(x, only_delta(artifact), padding=1), wanted, rtol=0, atol=1e-3)


def test_a_matrix_fits_a_convolution_of_one_pixel(bases, tmp_path):
    parts = {"lora_down.weight": draw(2, 48), "lora_up.weight": draw(48, 2)}
    artifact = import_file(one_layer_file(tmp_path, parts), bases["sd1"])
    assert only_delta(artifact).shape == (48, 48, 1, 1)


BAD = {
    "another kind of base": {"lora_unet_nowhere.lora_up.weight": torch.ones(4, 1)},
    "not finite": {"lora_unet_conv_in.lora_up.weight": torch.full((16, 1), math.nan)},
    "damaged": {"lora_unet_conv_in.lora_up.weight": torch.ones(16, 1)},
    "do not": {
        "lora_unet_conv_in.lora_up.weight": torch.ones(16, 1),
        "lora_unet_conv_in.lora_down.weight": torch.ones(1, 5, 3, 3),
    },
    "cannot be read": {"lora_unet_conv_in.oft_blocks": torch.ones(4, 4)},
    "floating": {"lora_unet_conv_in.lora_up.weight": torch.ones(16, 1, dtype=torch.int32)},
}


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_file_is_refused_in_one_line_that_names_it(reason, bases, tmp_path):
    path = tmp_path / "bad.safetensors"
    save_file(BAD[reason], path)
    with pytest.raises(ArtifactError, match=reason) as caught:
        import_file(path, bases["sd1"])
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_half_written_file_is_refused(bases, tmp_path):
    artifact = trained("lora", bases["sd1"], rank=2)
    path = export_file(artifact, "kohya", tmp_path / "mira", bases["sd1"])
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ArtifactError, match="no whole safetensors"):
        import_file(path, bases["sd1"])


def test_a_lora_of_another_family_is_refused(bases, tmp_path):
    artifact = trained("lora", bases["sdxl"], rank=2)
    path = export_file(artifact, "kohya", tmp_path / "xl", bases["sdxl"])
    with pytest.raises(ArtifactError, match="sdxl_base_v1-0"):
        import_file(path, bases["sd1"])


def test_a_format_refuses_what_it_cannot_carry(bases, tmp_path):
    artifact = trained("hypernetwork", bases["sd1"])
    with pytest.raises(UnsupportedError, match="cannot carry hypernetwork"):
        export_file(artifact, "kohya", tmp_path / "x", bases["sd1"])
    lora = trained("lora", bases["sd1"], rank=2)
    with pytest.raises(ArtifactError, match="load that base, or train anew"):
        export_file(lora, "kohya", tmp_path / "x", bases["sd2"])
    assert not list(tmp_path.iterdir())
