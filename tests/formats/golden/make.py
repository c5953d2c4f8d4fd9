"""Writes the golden files beside this script, as other tools write theirs.

Nothing of personae is used: names, shapes and metadata are spelt out here, and every number is
`numbers(its name, *its shape)`, so that a test can say what it must read. The base the files fit
is the toy Stable Diffusion 1 of the tests. The committed files stay as they are; run this only to
add one.
"""

import hashlib
import json
import math
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

HERE = Path(__file__).parent
BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0"
ATTENTION = {
    **{f"{BLOCK}.attn1.{part}": (16, 16) for part in ("to_q", "to_k", "to_v", "to_out.0")},
    **{f"{BLOCK}.attn2.{part}": (16, 16) for part in ("to_q", "to_out.0")},
    **{f"{BLOCK}.attn2.{part}": (16, 24) for part in ("to_k", "to_v")},
    "mid_block.attentions.0.transformer_blocks.0.attn2.to_k": (48, 24),
    "up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_v": (32, 24),
}
REST = {
    "down_blocks.0.attentions.0.proj_in": (16, 16, 1, 1),
    "down_blocks.0.attentions.0.proj_out": (16, 16, 1, 1),
    f"{BLOCK}.ff.net.0.proj": (128, 16),
    f"{BLOCK}.ff.net.2": (16, 64),
    "down_blocks.0.resnets.0.conv1": (16, 16, 3, 3),
    "down_blocks.0.resnets.0.time_emb_proj": (16, 64),
    "down_blocks.0.downsamplers.0.conv": (16, 16, 3, 3),
}
TEXT = {
    **{f"self_attn.{part}_proj": (24, 24) for part in ("q", "k", "v", "out")},
    "mlp.fc1": (48, 24),
    "mlp.fc2": (24, 48),
}
TEXT = {f"text_model.encoder.layers.0.{name}": shape for name, shape in TEXT.items()}


def numbers(name: str, *shape: int) -> Tensor:
    """A saw of 17 teeth that begins elsewhere for each name; exact in 16 bits."""
    start = zlib.crc32(name.encode())
    return ((torch.arange(math.prod(shape)) + start) % 17 - 8).reshape(shape) / 32


def named(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    return {name: numbers(name, *shape) for name, shape in shapes.items()}


def pair(layer: tuple[int, ...], rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of down and up for a weight of shape `layer`."""
    return (rank, *layer[1:]), (layer[0], rank, *(1 for _ in layer[2:]))


def kohya_lora() -> None:
    layers = {f"unet_{name}": shape for name, shape in (ATTENTION | REST).items()}
    layers |= {f"te_{name}": shape for name, shape in TEXT.items()}
    shapes, alphas = {}, {}
    for layer, shape in layers.items():
        name = f"lora_{layer.replace('.', '_')}"
        shapes[f"{name}.lora_down.weight"], shapes[f"{name}.lora_up.weight"] = pair(shape, 2)
        alphas[f"{name}.alpha"] = torch.tensor(1.0)
    tensors = {name: value.half() for name, value in (named(shapes) | alphas).items()}
    metadata = {
        "ss_base_model_version": "sd_v1",
        "ss_v2": "False",
        "ss_output_name": "kohya_lora",
        "ss_network_module": "networks.lora",
        "ss_network_dim": "2",
        "ss_network_alpha": "1.0",
        "ss_network_args": json.dumps({"conv_dim": "2", "conv_alpha": "1.0"}),
        "ss_sd_model_name": "toy.safetensors",
        "ss_num_train_images": "48",
        "ss_tag_frequency": json.dumps({"4_mira cat": {"hat": 3, "mira cat": 12}}),
        "ss_steps": "480",
        "ss_total_batch_size": "1",
        "ss_seed": "42",
        "ss_lr_scheduler": "cosine",
        "ss_noise_offset": "None",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "stable-diffusion-v1/lora",
        "modelspec.implementation": "diffusers",
        "modelspec.title": "kohya_lora",
        "modelspec.prediction_type": "epsilon",
    }
    path = HERE / "kohya_lora.safetensors"
    save_file(tensors, path, metadata)
    content = path.read_bytes()
    after_header = content[8 + int.from_bytes(content[:8], "little") :]
    digest = hashlib.sha256(after_header).hexdigest()
    hashes = {"sshs_model_hash": digest, "modelspec.hash_sha256": f"0x{digest}"}
    save_file(tensors, path, metadata | hashes)


def diffusers_lora() -> None:
    layers = {f"unet.{name}": shape for name, shape in ATTENTION.items()}
    layers |= {f"text_encoder.{name}": TEXT[name] for name in TEXT if "self_attn" in name}
    shapes = {}
    for name, shape in layers.items():
        shapes[f"{name}.lora_A.weight"], shapes[f"{name}.lora_B.weight"] = pair(shape, 2)
    of_text = PEFT | {"target_modules": ["k_proj", "out_proj", "q_proj", "v_proj"]}
    settings = {f"unet.{key}": value for key, value in PEFT.items()}
    settings |= {f"text_encoder.{key}": value for key, value in of_text.items()}
    metadata = {"format": "pt", "lora_adapter_metadata": json.dumps(settings)}
    save_file(named(shapes), HERE / "pytorch_lora_weights.safetensors", metadata)


PEFT = {
    "alpha_pattern": {},
    "base_model_name_or_path": "toy",
    "bias": "none",
    "fan_in_fan_out": False,
    "inference_mode": True,
    "init_lora_weights": True,
    "lora_alpha": 4,
    "lora_dropout": 0.0,
    "modules_to_save": None,
    "peft_type": "LORA",
    "r": 2,
    "rank_pattern": {},
    "target_modules": ["to_k", "to_out.0", "to_q", "to_v"],
    "task_type": None,
    "use_dora": False,
    "use_rslora": False,
}


def peft_folder() -> None:
    """One kind of layer has a rank and an alpha of its own, under the end of its name."""
    folder = HERE / "peft_lora"
    folder.mkdir(exist_ok=True)
    shapes = {}
    for name, shape in ATTENTION.items():
        down, up = pair(shape, 4 if name.endswith("attn2.to_k") else 2)
        shapes[f"base_model.model.{name}.lora_A.weight"] = down
        shapes[f"base_model.model.{name}.lora_B.weight"] = up
    save_file(named(shapes), folder / "adapter_model.safetensors", {"format": "pt"})
    own = {"rank_pattern": {"attn2.to_k": 4}, "alpha_pattern": {"attn2.to_k": 1}}
    settings = json.dumps(PEFT | own, indent=2, sort_keys=True)
    (folder / "adapter_config.json").write_text(settings)


def lycoris() -> None:
    linear = f"lora_unet_{BLOCK.replace('.', '_')}_attn2_to_k"
    conv = "lora_unet_down_blocks_0_resnets_0_conv1"
    for kind, shapes in {
        "loha": {
            f"{linear}.hada_w1_a": (16, 2),
            f"{linear}.hada_w1_b": (2, 24),
            f"{linear}.hada_w2_a": (16, 2),
            f"{linear}.hada_w2_b": (2, 24),
            f"{conv}.hada_t1": (2, 2, 3, 3),
            f"{conv}.hada_w1_a": (2, 16),
            f"{conv}.hada_w1_b": (2, 16),
            f"{conv}.hada_t2": (2, 2, 3, 3),
            f"{conv}.hada_w2_a": (2, 16),
            f"{conv}.hada_w2_b": (2, 16),
        },
        "lokr": {
            f"{linear}.lokr_w1": (4, 4),
            f"{linear}.lokr_w2_a": (4, 2),
            f"{linear}.lokr_w2_b": (2, 6),
            f"{conv}.lokr_w1": (4, 4),
            f"{conv}.lokr_w2": (4, 4, 3, 3),
        },
    }.items():
        alphas = {f"{layer}.alpha": torch.tensor(1.0) for layer in (linear, conv)}
        metadata = {
            "ss_base_model_version": "sd_v1",
            "ss_v2": "False",
            "ss_output_name": kind,
            "ss_network_module": "lycoris.kohya",
            "ss_network_dim": "2",
            "ss_network_alpha": "1.0",
            "ss_network_args": json.dumps({"algo": kind, "use_tucker": "True"}),
        }
        tensors = {name: value.half() for name, value in (named(shapes) | alphas).items()}
        save_file(tensors, HERE / f"{kind}.safetensors", metadata)


def embeddings() -> None:
    content = {
        "string_to_token": {"*": 265},
        "string_to_param": {"*": numbers("*", 2, 24)},
        "name": "mira",
        "step": 3000,
        "sd_checkpoint": "0123456789",
        "sd_checkpoint_name": "toy",
    }
    save_as_a1111(content, HERE / "embedding.pt")
    metadata = {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "stable-diffusion-v1/textual-inversion",
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "modelspec.title": "embedding",
    }
    save_file(named({"emb_params": (2, 24)}), HERE / "embedding.safetensors", metadata)
    learned = named({"<mira>": (2, 24)})
    save_file(learned, HERE / "learned_embeds.safetensors", {"format": "pt"})


def hypernetworks() -> None:
    """Numbers of layers count Linear, activation, LayerNorm and Dropout alike."""
    inner = {
        "linear.0": (12, 24), "linear.2": (12,), "linear.4": (12, 12), "linear.6": (12,),
        "linear.8": (24, 12), "linear.10": (24,),
    }  # fmt: skip
    content = {
        24: tuple(OrderedDict(state(f"24.{part}.", inner)) for part in "kv"),
        "step": 2000,
        "name": "hypernetwork",
        "layer_structure": [1, 0.5, 0.5, 1],
        "activation_func": "relu",
        "is_layer_norm": True,
        "weight_initialization": "XavierNormal",
        "activate_output": True,
        "use_dropout": True,
        "dropout_structure": [0, 0.3, 0.3, 0],
        "last_layer_dropout": True,
        "sd_checkpoint": "0123456789",
        "sd_checkpoint_name": "toy",
        "optional_info": "",
    }
    save_as_a1111(content, HERE / "hypernetwork.pt")
    legacy = {"linear1": (48, 24), "linear2": (24, 48)}
    torch.save(
        {24: [state(f"24.{part}.", legacy) for part in "kv"]},
        HERE / "hypernetwork_legacy.pt",
        _use_new_zipfile_serialization=False,
    )


def state(prefix: str, weights: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    shapes = {}
    for name, shape in weights.items():
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, shape[:1]
    return {name: numbers(prefix + name, *shape) for name, shape in shapes.items()}


def save_as_a1111(content: dict, path: Path) -> None:
    """The members that every torch since 1.6 writes; A1111 refuses the newer ones."""
    torch.save(content, path)
    with zipfile.ZipFile(path) as archive:
        members = {info.filename.split("/", 1)[1]: archive.read(info) for info in archive.filelist}
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in members.items():
            if name in ("data.pkl", "version") or name.startswith("data/"):
                archive.writestr(zipfile.ZipInfo(f"archive/{name}"), value)


if __name__ == "__main__":
    kohya_lora()
    diffusers_lora()
    peft_folder()
    lycoris()
    embeddings()
    hypernetworks()
