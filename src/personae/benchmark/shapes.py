"""A base of the shape of Stable Diffusion 1.5, random weights: measuring without a download.

The settings are those of the published U-Net, autoencoder and text encoder (Rombach et al. 2022,
arXiv:2112.10752; github.com/CompVis/stable-diffusion, v1-inference.yaml).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from personae.core.cache import default_folder
from personae.core.devices import SHAPES_ONLY
from personae.core.seeds import generator_for
from personae.models.weights.sources import embedded_bases

NAME = "sd15-shape"
VOCABULARY = 49408


def shaped_base() -> Path:
    """Return the folder of the base in the cache; it is made the first time (2.1 GB, bf16)."""
    folder = default_folder() / NAME
    if not (folder / "model_index.json").is_file():
        unfinished = folder.with_name(f"{NAME}.part")
        shutil.rmtree(unfinished, ignore_errors=True)
        _pipeline().save_pretrained(unfinished)
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)
    return folder


def _pipeline() -> StableDiffusionPipeline:
    with SHAPES_ONLY:
        unet = UNet2DConditionModel(
            sample_size=64,
            block_out_channels=(320, 640, 1280, 1280),
            layers_per_block=2,
            cross_attention_dim=768,
            attention_head_dim=8,
        )
        autoencoder = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            latent_channels=4,
            sample_size=512,
        )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    return StableDiffusionPipeline(
        unet=_filled(unet),
        vae=_filled(autoencoder),
        text_encoder=_filled(_text_encoder()),
        tokenizer=_tokenizer(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _text_encoder() -> CLIPTextModel:
    """Return the text encoder of CLIP ViT-L/14, drawn small at first: its buffers need values."""
    config = CLIPTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        hidden_act="quick_gelu",
    )
    return CLIPTextModel(config)


@torch.no_grad()
def _filled(network: nn.Module) -> nn.Module:
    """Return `network` in bf16 with weights that keep the size of what passes through it."""
    generator = generator_for(0, "shape", type(network).__name__)
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            value = torch.zeros(parameter.shape, dtype=torch.bfloat16)
            if parameter.dim() > 1:
                spread = 0.02 if isinstance(module, nn.Embedding) else parameter[0].numel() ** -0.5
                value.normal_(0, spread, generator=generator)
            elif name == "weight":  # of a norm
                value.fill_(1.0)
            module._parameters[name] = nn.Parameter(value, requires_grad=False)
    return network


def _tokenizer() -> CLIPTokenizer:
    """Return an embedded base's tokenizer, filled up to the published size with words never met."""
    folder = next(iter(embedded_bases().values())) / "tokenizer"
    words = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    merges = [tuple(line.split()) for line in lines if line and not line.startswith("#")]
    words |= {f"\0{i}": i for i in range(len(words), VOCABULARY)}
    return CLIPTokenizer(vocab=words, merges=merges, model_max_length=77)
