"""Toy pipelines of the three shapes, and artifacts with random values, for the format tests."""

import torch
from diffusers import DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from personae.artifacts.artifact import Artifact
from personae.core.devices import HOST
from personae.core.registry import lookup
from personae.models.families.stable_diffusion import StableDiffusion
from personae.models.family import Family
from personae.models.noise_path import Diffusion
from personae.models.text_tower import TextTower
from personae.models.toys import (
    tiny_autoencoder,
    tiny_stable_diffusion,
    tiny_text_config,
    tiny_tokenizer,
)
from personae.models.weights.fingerprint import fingerprint
from personae.techniques.technique import Technique

KINDS = ("sd1", "sd2", "sdxl")


def pipeline(kind: str):
    """A fresh toy pipeline; the same weights each time."""
    pipe = tiny_xl() if kind == "sdxl" else tiny_stable_diffusion(int(kind[-1]))
    for network in (pipe.unet, pipe.vae, pipe.text_encoder):
        network.requires_grad_(False).eval()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def tiny_xl() -> StableDiffusionXLPipeline:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(16, 32, 32),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=2,
            transformer_layers_per_block=(1, 1, 2),
            cross_attention_dim=56,
            attention_head_dim=(2, 4, 4),
            norm_num_groups=8,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=32 + 48,
        )
        first = CLIPTextModel(tiny_text_config(24))
        wide = tiny_text_config(32)
        wide.projection_dim = 32
        second = CLIPTextModelWithProjection(wide).eval().requires_grad_(False)
        vae = tiny_autoencoder()
    scheduler = DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    return StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=first,
        text_encoder_2=second,
        tokenizer=tiny_tokenizer(),
        tokenizer_2=tiny_tokenizer(),
        unet=unet,
        scheduler=scheduler,
        add_watermarker=False,
    )


class TwoTowers(StableDiffusion):
    """The networks of Stable Diffusion XL, which no family here loads yet."""

    file_layouts = ("sdxl",)

    @property
    def file_layout(self) -> str:
        return "sdxl"


def base_of(pipe, kind: str) -> Family:
    """The pipeline's own modules as a base."""
    if kind != "sdxl":
        return StableDiffusion.from_pipeline(pipe, f"tiny-{kind}", HOST, torch.float32)
    return TwoTowers(
        denoiser=pipe.unet,
        autoencoder=pipe.vae,
        towers=[
            TextTower(pipe.tokenizer, pipe.text_encoder),
            TextTower(pipe.tokenizer_2, pipe.text_encoder_2),
        ],
        path=Diffusion(pipe.scheduler.alphas_cumprod, "epsilon"),
        scheduler_config=dict(pipe.scheduler.config),
        device=HOST,
        dtype=torch.float32,
        source="tiny-sdxl",
        fingerprint=fingerprint(pipe.unet),
    )


def picture(pipe) -> Tensor:
    """The same short drawing each time."""
    return pipe(
        "a cat and the hat",
        negative_prompt="a",
        num_inference_steps=2,
        guidance_scale=3.0,
        height=64,
        width=64,
        generator=torch.Generator().manual_seed(3),
        output_type="latent",
    ).images


def trained(name: str, base: Family, size: float = 0.3, **settings) -> Artifact:
    """An artifact with random values in place of trained ones."""
    kind = lookup(Technique, name)
    generator = torch.Generator().manual_seed(5)
    technique = kind(kind.Config(**settings), base, generator)
    with torch.no_grad():
        for parameter in technique.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * size)
    character = {"name": "mira", "class_noun": "cat", "phrase": technique.phrase("mira", "cat")}
    return Artifact.of([technique], base, character=character)


def drawn_with(artifact: Artifact, pipe, base: Family) -> Tensor:
    """What the pipeline draws while the artifact is on its modules."""
    techniques = [technique.inject() for technique in artifact.build(base)]
    try:
        return picture(pipe)
    finally:
        for technique in techniques:
            technique.eject()


def draw(*shape: int, seed: int = 7) -> Tensor:
    """Normal numbers, other ones for each shape."""
    generator = torch.Generator().manual_seed(seed + sum(i * n for i, n in enumerate(shape, 1)))
    return torch.randn(shape, generator=generator)
