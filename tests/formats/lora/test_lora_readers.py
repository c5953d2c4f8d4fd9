"""What kohya's scripts, ComfyUI and A1111 make of our files, by rules written anew."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from format_world import KINDS, drawn_with, picture, trained
from lora_reference import (
    PREFIXES,
    SIX,
    a1111_layers,
    a1111_name,
    comfyui_layers,
    full_size,
    kohya_layers,
    original_names,
)
from personae.artifacts.low_rank import updates_of
from personae.formats.format import export_file
from personae.formats.layout import layout_of
from personae.formats.lora.names import kohya_name

SETTINGS = {"rank": 2, "alpha": 1.0, "targets": "all", "text_encoder": True}


@pytest.fixture(scope="module")
def full() -> dict:
    return {kind: full_size(kind) for kind in KINDS}


def usual_layers(base) -> list[str]:
    """The layers that kohya's scripts adapt with convolutions."""
    inner = original_names(base.denoiser)
    return [
        layer
        for layer in base.layers()
        if layer.removeprefix("denoiser.") in inner
        or (layer.startswith("text_encoder") and layer.replace(".", "_").endswith(SIX))
    ]


def exported(artifact, base, tmp_path) -> dict:
    return load_file(export_file(artifact, "kohya", tmp_path / "mira", base))


def by_layer(tensors: dict) -> dict[str, dict]:
    layers: dict[str, dict] = {}
    for key, value in tensors.items():
        name, part = key.split(".", 1)
        layers.setdefault(name, {})[part] = value
    return layers


def test_kohyas_network_finds_every_layer_and_draws_as_we_do(
    bases, pipes, plain, fresh_pipeline, tmp_path
):
    artifact = trained("lora", bases["sd1"], **SETTINGS)
    other = fresh_pipeline("sd1")
    theirs = kohya_layers(other)
    for name, parts in by_layer(exported(artifact, bases["sd1"], tmp_path)).items():
        theirs[name].register_forward_hook(in_kohyas_way(theirs[name], parts))
    ours = drawn_with(artifact, pipes["sd1"], bases["sd1"])
    assert (ours - plain["sd1"]).abs().max() > 0.01
    assert (picture(other) - ours).abs().max() < 1e-4


def in_kohyas_way(layer: nn.Module, parts: dict):
    """Output + up(down(input)) alpha / rank, both of them layers of the same kind."""
    down, up = parts["lora_down.weight"].float(), parts["lora_up.weight"].float()
    scale = parts["alpha"].item() / len(down)

    def hook(_, inputs, output):
        (x,) = inputs[:1]
        if down.dim() == 2:
            return output + (x @ down.T @ up.T) * scale
        inner = nn.functional.conv2d(x, down, None, layer.stride, layer.padding)
        return output + nn.functional.conv2d(inner, up) * scale

    return hook


@pytest.mark.parametrize("kind", KINDS)
def test_comfyui_finds_every_tensor_and_adds_the_same_to_the_weights(kind, bases, tmp_path):
    base = bases[kind]
    artifact = trained("lora", base, **SETTINGS)
    known, updates = comfyui_layers(base, kind), updates_of(artifact)
    layers = by_layer(exported(artifact, base, tmp_path))
    assert set(layers) <= set(known)
    assert set(updates) <= {known[name] for name in layers}
    for name, parts in layers.items():
        up, down = parts["lora_up.weight"].float(), parts["lora_down.weight"].float()
        delta = up.flatten(1) @ down.flatten(1) * (parts["alpha"].item() / len(down))
        ours = updates[known[name]].delta()
        assert (delta.reshape(ours.shape) - ours).abs().max() < 1e-6, name


@pytest.mark.parametrize(("kind", "unet", "text"), [("sd1", 192, 72), ("sdxl", 722, 72 + 192)])
def test_the_usual_layers_of_the_real_bases_are_as_many_as_kohya_counts(kind, unet, text, full):
    layers = [layer for layer in usual_layers(full[kind]) if "attentions." in layer]
    assert len(layers) == unet
    layers = [layer for layer in usual_layers(full[kind]) if layer.startswith("text_encoder")]
    assert len(layers) == text


@pytest.mark.parametrize("kind", KINDS)
def test_comfyui_and_a1111_find_every_layer_of_the_real_bases(kind, full):
    base, layout = full[kind], layout_of(full[kind])
    names = {kohya_name(layer, base, layout): layer for layer in usual_layers(base)}
    assert comfyui_layers(base, kind).items() >= names.items()
    theirs = {a1111_name(name, kind) for name in names}
    assert theirs == a1111_layers(base, kind)
    assert len(theirs) == len(names)


@pytest.mark.parametrize("kind", ["sd2", "sdxl"])
def test_a1111_is_given_all_four_projections_of_every_openclip_attention(kind, bases, tmp_path):
    artifact = trained("lora", bases[kind], **SETTINGS)
    prefix = PREFIXES[kind][-1]
    layers = by_layer(exported(artifact, bases[kind], tmp_path))
    attentions = {n.rsplit("_", 2)[0] for n in layers if n.startswith(prefix) and "self_attn" in n}
    assert attentions
    for attention in attentions:
        assert {f"{attention}_{part}_proj" for part in ("q", "k", "v", "out")} <= set(layers)


def test_dora_of_the_portable_kind_is_one_number_in_a1111_comfyui_and_here(bases, tmp_path):
    """Norms of inputs and alpha = rank: the only DoRA on which the tools agree."""
    from safetensors.torch import save_file

    from personae.formats.format import import_file

    name = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    weight = bases["sd1"].denoiser.get_submodule(name).weight
    generator = torch.Generator().manual_seed(0)
    down, up = (torch.randn(s, generator=generator) for s in ((2, 48), (48, 2)))
    magnitude = torch.rand(1, 48, generator=generator) + 0.5
    moved = weight + up @ down  # alpha / rank is 1
    a1111 = moved * (magnitude / moved.norm(dim=0, keepdim=True)) - weight
    norms = moved.transpose(0, 1).reshape(48, -1).norm(dim=1, keepdim=True).T
    comfyui = moved / norms * magnitude - weight
    assert (a1111 - comfyui).abs().max() < 1e-6
    parts = {"lora_down.weight": down, "lora_up.weight": up, "dora_scale": magnitude}
    parts["alpha"] = torch.tensor(2.0)
    stem = "lora_unet_" + name.replace(".", "_")
    save_file({f"{stem}.{key}": value for key, value in parts.items()}, tmp_path / "d.safetensors")
    (update,) = updates_of(import_file(tmp_path / "d.safetensors", bases["sd1"])).values()
    assert (update.delta() - a1111).abs().max() < 1e-4
