"""Toy-sized pipelines of the real diffusers classes, for tests and for trying things out.

The weights are random; the shapes, names and code paths are those of the real bases.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
)

if TYPE_CHECKING:
    from diffusers import Flux2KleinPipeline, ZImagePipeline


def tiny_tokenizer(pad_token: str = "<|endoftext|>") -> CLIPTokenizer:
    """Return a byte-level CLIP tokenizer without merges except for one, 521 entries."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    symbols = list(bytes_to_unicode().values())
    words = [*symbols, *(f"{symbol}</w>" for symbol in symbols)]
    merges = [("a", "n"), ("c", "a"), ("an", "d</w>"), ("ca", "t</w>"), ("t", "h"), ("th", "e</w>")]
    words += ["".join(pair) for pair in merges] + ["ro", "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={word: i for i, word in enumerate(words)},
        merges=merges,
        model_max_length=77,
        pad_token=pad_token,
    )


def tiny_text_config(width: int, layers: int = 2, **settings: Any) -> CLIPTextConfig:
    """Return the settings of a CLIP text encoder of `width` that fits `tiny_tokenizer`."""
    return CLIPTextConfig(
        vocab_size=521,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        bos_token_id=519,
        eos_token_id=520,
        pad_token_id=520,
        **settings,
    )


def tiny_autoencoder(kind: type[Any] = AutoencoderKL, **settings: Any) -> Any:
    """Return an f8 autoencoder of four levels, of a class with the settings of AutoencoderKL."""
    return kind(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=64,
        **settings,
    )


def tiny_shifted_autoencoder() -> AutoencoderKL:
    """Return an autoencoder whose latents are shifted and scaled as those of FLUX.1."""
    made: AutoencoderKL = tiny_autoencoder(
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    return made


def tiny_stable_diffusion(version: int, seed: int = 0) -> StableDiffusionPipeline:
    """Return a pipeline of the shape of SD `version` (1: eps, conv projections; 2: v, linear).

    Four levels exercise the block numbering; the text width differs from every U-Net width.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(16, 32, 32, 48),
            layers_per_block=1,
            cross_attention_dim=24,
            attention_head_dim=2 if version == 1 else (2, 4, 4, 6),
            norm_num_groups=8,
            use_linear_projection=version == 2,
        )
        encoder = CLIPTextModel(tiny_text_config(24))
        vae = tiny_autoencoder()
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="epsilon" if version == 1 else "v_prediction",
    )
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=encoder,
        tokenizer=tiny_tokenizer(),
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _tiny_sdxl_unet(blocks_at_the_bottom: int) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        transformer_layers_per_block=(1, 1, blocks_at_the_bottom),
        cross_attention_dim=16 + 24,
        attention_head_dim=(2, 4, 4),
        norm_num_groups=8,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 20,
    )


def tiny_stable_diffusion_xl(
    prediction_type: str = "epsilon", seed: int = 0
) -> StableDiffusionXLPipeline:
    """Return a pipeline of the shape of Stable Diffusion XL.

    The one that predicts v is made up as such bases are: its noisiest step is noise alone, an empty
    prompt is encoded like any other, and its autoencoder knows mean and deviation of its latents.
    """
    v = prediction_type == "v_prediction"
    statistics = {"latents_mean": [0.1, -0.2, 0.3, 0.0], "latents_std": [0.9, 1.1, 1.3, 0.8]}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        unet = _tiny_sdxl_unet(blocks_at_the_bottom=1 if v else 2)
        first = CLIPTextModel(tiny_text_config(16))
        second = CLIPTextModelWithProjection(tiny_text_config(24, projection_dim=20))
        vae = tiny_autoencoder(AutoencoderKL, scaling_factor=0.13025, **(statistics if v else {}))
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction_type,
        timestep_spacing="leading",
        steps_offset=1,
        rescale_betas_zero_snr=v,
    )
    return StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=first,
        text_encoder_2=second,
        tokenizer=tiny_tokenizer(),
        tokenizer_2=tiny_tokenizer("!"),
        unet=unet,
        scheduler=scheduler,
        force_zeros_for_empty_prompt=not v,
        add_watermarker=False,
    )


CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
)


def tiny_chat_tokenizer(length: int = 1024) -> Qwen2Tokenizer:
    """Return a byte-level tokenizer of Qwen's kind with a few merges and a chat template."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    merges = ["a n", "c a", "an d", "ca t", "ca n", "t h", "th e", "m an", "u s", "e r", "us er"]
    merges += ["a s", "as s", "i s", "is t", "ist an", "istan t", "ass istant"]
    words = [*bytes_to_unicode().values(), *(merge.replace(" ", "") for merge in merges)]
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    return Qwen2Tokenizer(
        vocab={word: i for i, word in enumerate([*words, *marks])},
        merges=[tuple(merge.split()) for merge in merges],
        additional_special_tokens=marks[1:],
        chat_template=CHAT,
        model_max_length=length,
    )


def tiny_qwen3_config(tokenizer: Qwen2Tokenizer, layers: int) -> Qwen3Config:
    """Return the settings of a language model of width 16 whose head is its table of words."""
    return Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        tie_word_embeddings=True,
    )


def tiny_z_image(seed: int = 0) -> ZImagePipeline:
    """Return a pipeline of the shape of Z-Image: padding tokens and latents' shift are not 0."""
    from diffusers import ZImagePipeline, ZImageTransformer2DModel

    tokenizer = tiny_chat_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        transformer = ZImageTransformer2DModel(
            in_channels=4,
            dim=32,
            n_layers=2,
            n_refiner_layers=1,
            n_heads=2,
            n_kv_heads=2,
            cap_feat_dim=16,
            axes_dims=[8, 4, 4],
            axes_lens=[1024, 64, 64],
        )
        for token in (transformer.x_pad_token, transformer.cap_pad_token):
            torch.nn.init.normal_(token)
        encoder = Qwen3Model(tiny_qwen3_config(tokenizer, layers=3))
        vae = tiny_shifted_autoencoder()
    return ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0),
        vae=vae,
        text_encoder=encoder,
        tokenizer=tokenizer,
        transformer=transformer,
    )


def tiny_flux2(seed: int = 0, **settings: Any) -> Flux2KleinPipeline:
    """Return a pipeline of the shape of FLUX.2 klein; the latents' statistics are not 0 and 1.

    Its tokenizer asks for fewer tokens than the pipeline's 512, which are all read by the
    transformer.
    """
    from diffusers import AutoencoderKLFlux2, Flux2KleinPipeline, Flux2Transformer2DModel

    tokenizer = tiny_chat_tokenizer(length=96)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        transformer = Flux2Transformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=48,
            timestep_guidance_channels=32,
            axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=False,
        )
        encoder = Qwen3ForCausalLM(tiny_qwen3_config(tokenizer, layers=4))
        vae = tiny_autoencoder(AutoencoderKLFlux2)
        torch.nn.init.normal_(vae.bn.running_mean)
        torch.nn.init.uniform_(vae.bn.running_var, 0.5, 2.0)
    return Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=vae,
        text_encoder=encoder,
        tokenizer=tokenizer,
        transformer=transformer,
        **settings,
    )
