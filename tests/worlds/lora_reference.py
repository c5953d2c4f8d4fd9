"""How other tools find the layers of LoRA files, written anew from the structure of models."""

import re
from collections.abc import Iterator

import torch
from diffusers import UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from format_world import TwoTowers
from personae.core.devices import HOST
from personae.models.families.stable_diffusion import StableDiffusion
from personae.models.family import Family
from personae.models.noise_path import Diffusion
from personae.models.text_tower import TextTower
from personae.models.toys import tiny_autoencoder, tiny_tokenizer

XL = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
UNETS = {
    "sd1": {"cross_attention_dim": 768, "attention_head_dim": 8},
    "sd2": {
        "cross_attention_dim": 1024,
        "attention_head_dim": (5, 10, 20, 20),
        "use_linear_projection": True,
    },
    "sdxl": XL,
}
ENCODERS = {"sd1": [(768, 12)], "sd2": [(1024, 23)], "sdxl": [(768, 12), (1280, 32)]}
SIX = ("self_attn_q_proj", "self_attn_k_proj", "self_attn_v_proj", "self_attn_out_proj", "mlp_fc1",
       "mlp_fc2")  # fmt: skip
PREFIXES = {"sd1": ["lora_te_"], "sd2": ["lora_te_"], "sdxl": ["lora_te1_", "lora_te2_"]}


def full_size(kind: str) -> Family:
    """A base of the real shape without values."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, **UNETS[kind])
        towers = []
        for i, (width, layers) in enumerate(ENCODERS[kind]):
            config = CLIPTextConfig(
                hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
                num_attention_heads=width // 64, projection_dim=width, vocab_size=521,
                bos_token_id=519, eos_token_id=520, pad_token_id=520,
            )  # fmt: skip
            make = CLIPTextModelWithProjection if i else CLIPTextModel
            towers.append(TextTower(tiny_tokenizer(), make(config)))
    family = TwoTowers if kind == "sdxl" else StableDiffusion
    return family(
        denoiser=unet,
        autoencoder=tiny_autoencoder(),
        towers=towers,
        path=Diffusion(torch.linspace(0.999, 0.005, 1000), "epsilon"),
        scheduler_config={"prediction_type": "epsilon"},
        device=HOST,
        dtype=torch.float32,
        source=f"full-{kind}",
        fingerprint=f"full-{kind}",
    )


def original_blocks(depths: list[bool], middle: str, rows: int) -> Iterator[str]:
    """Names of the blocks in the order in which the original code makes them."""
    n = 1
    for level, attention in enumerate(depths):
        for _ in range(rows):
            yield f"input_blocks.{n}.0"
            if attention:
                yield f"input_blocks.{n}.1"
            n += 1
        if level < len(depths) - 1:
            yield f"input_blocks.{n}.0.op"
            n += 1
    yield from (f"{middle}.{i}" for i in range(3))
    n = 0
    for level in reversed(range(len(depths))):
        for row in range(rows + 1):
            yield f"output_blocks.{n}.0"
            if depths[level]:
                yield f"output_blocks.{n}.1"
            if row == rows and level:
                yield f"output_blocks.{n}.{1 + depths[level]}.conv"
            n += 1


def diffusers_blocks(unet: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Names and modules of the same blocks in the same order."""
    for side, sampler in (("down_blocks", "downsamplers"), ("up_blocks", "upsamplers")):
        for b, block in enumerate(getattr(unet, side)):
            for j, resnet in enumerate(block.resnets):
                yield f"{side}.{b}.resnets.{j}", resnet
                if hasattr(block, "attentions"):
                    yield f"{side}.{b}.attentions.{j}", block.attentions[j]
            if getattr(block, sampler, None):
                yield f"{side}.{b}.{sampler}.0.conv", getattr(block, sampler)[0].conv
        if side == "down_blocks":
            yield "mid_block.resnets.0", unet.mid_block.resnets[0]
            yield "mid_block.attentions.0", unet.mid_block.attentions[0]
            yield "mid_block.resnets.1", unet.mid_block.resnets[1]


RESNET = {
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def original_names(unet: nn.Module) -> dict[str, str]:
    """{diffusers' name of a layer: its name in the original code}, paired by order alone."""
    depths = [hasattr(block, "attentions") for block in unet.down_blocks]
    theirs = original_blocks(depths, "middle_block", unet.config.layers_per_block)
    names = {}
    for (ours, block), original in zip(diffusers_blocks(unet), theirs, strict=True):
        for inner, layer in block.named_modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                parts = [RESNET.get(inner, inner)] if inner else []
                names[".".join([ours, inner] if inner else [ours])] = ".".join([original, *parts])
    return names


def comfyui_layers(base: Family, kind: str) -> dict[str, str]:
    """{name in a kohya file: layer of ours} of all that ComfyUI looks for."""
    found = {}
    for ours, original in original_names(base.denoiser).items():
        for name in (ours, original):  # it looks for both spellings in files of any kind
            found["lora_unet_" + name.replace(".", "_")] = f"denoiser.{ours}"
    for i, prefix in enumerate(PREFIXES[kind]):
        network = f"text_encoder{i or ''}"
        for name, layer in base.networks[network].named_modules():
            flat = name.removeprefix("text_model.").replace(".", "_")
            if isinstance(layer, nn.Linear) and flat.endswith(SIX):
                found[f"{prefix}text_model_{flat}"] = f"{network}.{name}"
    return found


def kohya_layers(pipe) -> dict[str, nn.Module]:
    """{name: module} of all that kohya's LoRA network finds in a Stable Diffusion 1 pipeline."""
    kinds = ("Transformer2DModel", "ResnetBlock2D", "Downsample2D", "Upsample2D")
    found = {}
    for network, prefix, classes in (
        (pipe.unet, "lora_unet_", kinds),
        (pipe.text_encoder, "lora_te_text_model_", ("CLIPAttention", "CLIPMLP")),
    ):
        for path, module in network.named_modules():
            if type(module).__name__ in classes:
                for inner, layer in module.named_modules():
                    if isinstance(layer, nn.Linear | nn.Conv2d):
                        name = f"{path.removeprefix('text_model.')}.{inner}".replace(".", "_")
                        found[prefix + name] = layer
    return found


A1111_RESNET = {name: new.replace(".", "_") for name, new in RESNET.items()}
A1111_TEXT = {
    "mlp_fc1": "mlp_c_fc",
    "mlp_fc2": "mlp_c_proj",
    **{f"self_attn_{p}_proj": f"attn_{p}_proj" for p in ("q", "k", "v", "out")},
}


def a1111_name(name: str, kind: str) -> str:
    """The name under which A1111 looks a layer of a kohya file up in its model."""
    found = re.fullmatch(r"lora_te([12]?)_text_model_encoder_layers_(\d+)_(.+)", name)
    if found:
        if kind == "sd2" or found[1] == "2":
            start = "1_" if found[1] else ""
            return f"{start}model_transformer_resblocks_{found[2]}_{A1111_TEXT[found[3]]}"
        start = "0_" if found[1] else ""
        return f"{start}transformer_text_model_encoder_layers_{found[2]}_{found[3]}"
    path = name.removeprefix("lora_unet_")
    if found := re.fullmatch(r"mid_block_(attentions|resnets)_(\d)_(.+)", path):
        row = 1 if found[1] == "attentions" else 2 * int(found[2])
        path = f"middle_block_{row}_{A1111_RESNET.get(found[3], found[3])}"
    elif found := re.fullmatch(r"(down|up)_blocks_(\d)_(attentions|resnets)_(\d)_(.+)", path):
        side = "input" if found[1] == "down" else "output"
        row = 3 * int(found[2]) + int(found[4]) + (found[1] == "down")
        slot = int(found[3] == "attentions")
        path = f"{side}_blocks_{row}_{slot}_{A1111_RESNET.get(found[5], found[5])}"
    elif found := re.fullmatch(r"down_blocks_(\d)_downsamplers_0_conv", path):
        path = f"input_blocks_{3 * int(found[1]) + 3}_0_op"
    elif found := re.fullmatch(r"up_blocks_(\d)_upsamplers_0_conv", path):
        path = f"output_blocks_{3 * int(found[1]) + 2}_{2 if int(found[1]) else 1}_conv"
    return f"diffusion_model_{path}"


def a1111_layers(base: Family, kind: str) -> set[str]:
    """The names of the layers of A1111's model, those of an OpenCLIP attention one by one."""
    names = {
        "diffusion_model_" + name.replace(".", "_")
        for name in original_names(base.denoiser).values()
    }
    for i, (_, layers) in enumerate(ENCODERS[kind]):
        start = f"{i}_" if kind == "sdxl" else ""
        for n in range(layers):
            if kind == "sd2" or i == 1:
                stem = f"{start}model_transformer_resblocks_{n}_"
                names |= {stem + part for part in A1111_TEXT.values()}
            else:
                stem = f"{start}transformer_text_model_encoder_layers_{n}_"
                names |= {stem + part for part in SIX}
    return names
