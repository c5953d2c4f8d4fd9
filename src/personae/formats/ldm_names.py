"""Names of the original latent-diffusion code (LDM, SGM) for the modules of diffusers.

Source of the tables: the two U-Net and autoencoder classes themselves; every rename is checked in
the tests against diffusers' own single-file loader.
"""

from __future__ import annotations

import re

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_OUTER = {
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_AUTOENCODER_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
_OPEN_CLIP = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def unet_name(name: str, layers_per_block: int, attention_up: list[bool]) -> str:
    """Return the LDM name of a U-Net module or parameter.

    Args:
        name: diffusers' dotted name.
        layers_per_block: of the U-Net's settings.
        attention_up: for each up block, whether it holds attention layers.
    """
    stride = layers_per_block + 1  # residual blocks and then a resampler count as one row
    for outer, ldm in _OUTER.items():
        if name == outer or name.startswith(f"{outer}."):
            return ldm + name[len(outer) :]
    match name.split("."):
        case ["down_blocks", b, "downsamplers", "0", "conv", *rest]:
            return ".".join(["input_blocks", str(stride * (int(b) + 1)), "0.op", *rest])
        case ["down_blocks", b, part, j, *rest]:
            place = ["input_blocks", str(stride * int(b) + int(j) + 1), _slot(part)]
        case ["mid_block", "attentions", "0", *rest]:
            part, place = "attentions", ["middle_block.1"]
        case ["mid_block", part, j, *rest]:
            place = ["middle_block", str(2 * int(j))]
        case ["up_blocks", b, "upsamplers", "0", "conv", *rest]:
            slot = "2" if attention_up[int(b)] else "1"
            last = stride * int(b) + layers_per_block
            return ".".join(["output_blocks", str(last), slot, "conv", *rest])
        case ["up_blocks", b, part, j, *rest]:
            place = ["output_blocks", str(stride * int(b) + int(j)), _slot(part)]
        case _:
            return name
    inner = ".".join(rest)
    if part == "resnets":
        inner = re.sub(r"^\w+", lambda found: _RESNET.get(found[0], found[0]), inner)
    return ".".join([*place, inner]).rstrip(".")


def _slot(part: str) -> str:
    return "0" if part == "resnets" else "1"


def autoencoder_name(name: str, levels: int) -> str:
    """Return the LDM name of an autoencoder parameter.

    Args:
        name: diffusers' dotted name.
        levels: number of resolution levels; the decoder counts them from the other end.
    """
    name = re.sub(r"^(encoder)\.down_blocks\.(\d+)\.", r"\1.down.\2.", name)
    name = re.sub(
        r"^(decoder)\.up_blocks\.(\d+)\.", lambda m: f"{m[1]}.up.{levels - 1 - int(m[2])}.", name
    )
    name = re.sub(r"(down|up)samplers\.0\.conv", r"\1sample.conv", name)
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = name.replace(".resnets.", ".block.")
    found = re.match(r"(.*)mid_block\.attentions\.0\.(.*)\.(weight|bias)$", name)
    if found:
        name = f"{found[1]}mid.attn_1.{_AUTOENCODER_ATTENTION[found[2]]}.{found[3]}"
    return name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")


def with_text_model(name: str) -> str:
    """Return a text encoder's module or parameter name as all other tools spell it.

    transformers 5 dropped the level `text_model` from one of its two text encoders; readers still
    expect it in both.
    """
    outside = ("text_model.", "text_projection")
    return name if name.startswith(outside) else f"text_model.{name}"


def open_clip_name(name: str) -> str | None:
    """Return the OpenCLIP name of a text encoder's parameter.

    None for the query, key and value projections, which OpenCLIP keeps in one tensor
    (`transformer.resblocks.<i>.attn.in_proj_weight`).
    """
    name = with_text_model(name)
    outer = {
        "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
        "text_model.embeddings.position_embedding.weight": "positional_embedding",
        "text_model.final_layer_norm.weight": "ln_final.weight",
        "text_model.final_layer_norm.bias": "ln_final.bias",
        "text_projection.weight": "text_projection",
    }
    if name in outer:
        return outer[name]
    found = re.match(r"text_model\.encoder\.layers\.(\d+)\.(.*)\.(weight|bias)$", name)
    if found is None or found[2] not in _OPEN_CLIP:
        return None
    return f"transformer.resblocks.{found[1]}.{_OPEN_CLIP[found[2]]}.{found[3]}"
