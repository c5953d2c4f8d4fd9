"""A toy-sized pipeline of FLUX.1's shape, of the real classes; its weights are random."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from transformers import CLIPTextModel, T5Config, T5EncoderModel, T5Tokenizer

from personae.models.toys import tiny_shifted_autoencoder, tiny_text_config, tiny_tokenizer

if TYPE_CHECKING:
    from diffusers import FluxPipeline


def tiny_t5_tokenizer() -> T5Tokenizer:
    """Return a unigram tokenizer of T5's kind: letters, digits, marks and a few words."""
    marks = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), ("\u2581", -2.0)]
    letters = [(each, -3.0) for each in string.printable.strip() if each != "<"]
    words = [(f"\u2581{each}", -1.0) for each in ("the", "cat", "man", "and", "can")]
    return T5Tokenizer(vocab=[*marks, *letters, *words], extra_ids=0, model_max_length=32)


def tiny_flux(guidance: bool, seed: int = 0) -> FluxPipeline:
    """Return a pipeline of the shape of FLUX.1-dev, or without `guidance` of FLUX.1-schnell."""
    from diffusers import FluxPipeline, FluxTransformer2DModel

    words = tiny_t5_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        transformer = FluxTransformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=16,
            guidance_embeds=guidance,
            axes_dims_rope=(4, 4, 8),
        )
        clip = CLIPTextModel(tiny_text_config(16, layers=1))
        settings = {"d_model": 32, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 4}
        t5 = T5EncoderModel(
            T5Config(vocab_size=len(words), feed_forward_proj="gated-gelu", **settings)
        ).eval()
        vae = tiny_shifted_autoencoder()
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=guidance),
        vae=vae,
        text_encoder=clip,
        tokenizer=tiny_tokenizer(),
        text_encoder_2=t5,
        tokenizer_2=words,
        transformer=transformer,
    )
