"""Stable Diffusion 1.x and 2.x: one CLIP text encoder, a U-Net with cross-attention, eps or v."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from personae.core.devices import HOST
from personae.errors import UsageError
from personae.models.family import Family
from personae.models.noise_path import Diffusion
from personae.models.samplers import DIFFUSION_SAMPLERS
from personae.models.targets import TargetSets
from personae.models.text import Conditions, Text
from personae.models.text_tower import TextTower
from personae.models.toys import tiny_stable_diffusion
from personae.models.weights import pipelines, sources
from personae.models.weights.fingerprint import fingerprint
from personae.models.weights.unloaded import Unloaded, readable_again

_PARTS: Final = {
    "denoiser": ("model.diffusion_model.",),
    "text encoder": ("cond_stage_model.",),
    "autoencoder": ("first_stage_model.",),
}
"""Parts of a single file by the beginnings of their names in the original code."""


class StableDiffusion(Family):
    """A loaded Stable Diffusion 1.x or 2.x.

    Source: Rombach et al. 2022, arXiv:2112.10752.
    """

    name = "stable_diffusion"
    denoiser_component = "unet"
    file_layouts = ("sd1", "sd2")
    targets = TargetSets(
        sets={
            "cross_attention": r"attn2\.to_(q|k|v|out\.0)$",
            "attention": r"attn\d\.to_(q|k|v|out\.0)$",
            "feed_forward": r"\.ff\.net\.(0\.proj|2)$",
            "convolutions": r"resnets\.\d+\.conv|(down|up)samplers\.0\.conv$",
        },
        text_keys=r"attn2\.to_k$",
        text_values=r"attn2\.to_v$",
        self_keys=r"attn1\.to_k$",
        self_values=r"attn1\.to_v$",
    )

    samplers = DIFFUSION_SAMPLERS
    usual_sampler = "dpm++2m"

    @classmethod
    def recognises(cls, source: str | Path) -> bool:
        """Accept folders and hub ids of StableDiffusionPipeline, and LDM single files of it."""
        if sources.is_single_file(source):
            keys = sources.checkpoint_keys(source)
            return "model.diffusion_model.input_blocks.0.0.weight" in keys and not any(
                key.startswith("conditioner.") for key in keys
            )
        return sources.pipeline_class(source) == "StableDiffusionPipeline"

    @classmethod
    def load(
        cls,
        source: str | Path,
        device: torch.device,
        dtype: torch.dtype,
        *,
        denoiser_unloaded: bool = False,
    ) -> Self:
        """Load straight into `dtype`, tensor by tensor; the safety checker is left out."""
        if sources.is_single_file(source):
            pipelines.require_parts(Path(source), _PARTS)
        pipe = pipelines.load_pipeline(
            StableDiffusionPipeline,
            source,
            dtype,
            unloaded={cls.denoiser_component} if denoiser_unloaded else (),
            device=device,
            safety_checker=None,
            feature_extractor=None,
        )
        base = cls.from_pipeline(pipe, str(source), device, dtype)
        if denoiser_unloaded:
            base.unloaded = Unloaded(list(readable_again(Path(source), base.components.denoiser)))
            base.unloaded.unload()
        if denoiser_unloaded or dtype is torch.float16:
            base.fingerprint = fingerprint(pipe.unet, Path(source) / cls.denoiser_component)
        return base

    @classmethod
    def from_pipeline(
        cls, pipe: StableDiffusionPipeline, source: str, device: torch.device, dtype: torch.dtype
    ) -> Self:
        """Take a diffusers pipeline's own modules as a base; they are frozen and moved."""
        # SD 1.x autoencoders overflow in fp16; the rest of the base may use it.
        autoencoder_dtype = torch.float32 if dtype is torch.float16 else dtype
        networks = (pipe.unet, pipe.text_encoder, pipe.vae)
        for network, wanted in zip(networks, (dtype, dtype, autoencoder_dtype), strict=True):
            network.requires_grad_(False).eval().to(device)
            if network.dtype != wanted:
                network.to(wanted)
        return cls(
            denoiser=pipe.unet,
            autoencoder=pipe.vae,
            towers=[TextTower(pipe.tokenizer, pipe.text_encoder)],
            path=Diffusion(
                pipe.scheduler.alphas_cumprod.clone(), pipe.scheduler.config.prediction_type
            ),
            scheduler_config=dict(pipe.scheduler.config),
            device=device,
            dtype=dtype,
            source=source,
            fingerprint=fingerprint(pipe.unet),
        )

    @classmethod
    def tiny(cls, seed: int = 0) -> list[Self]:
        """Return an SD 1.x-shaped eps base and an SD 2.x-shaped v base, float32, on the host."""
        return [
            cls.from_pipeline(
                tiny_stable_diffusion(version, seed),
                f"tiny-sd{version}",
                HOST,
                torch.float32,
            )
            for version in (1, 2)
        ]

    @property
    def file_layout(self) -> str:
        """Tell version 2 by its linear projections; version 1 has 1x1 convolutions there."""
        return "sd2" if self.denoiser.config.get("use_linear_projection") else "sd1"

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Return the mean of the posterior, scaled; the mean makes a cache exact."""
        pixels = pixels.to(self.device, self.autoencoder.dtype)
        mode: Tensor = self.autoencoder.encode(pixels).latent_dist.mode()
        scale: float = self.autoencoder.config.scaling_factor
        return mode.float() * scale

    def decode_image(self, latents: Tensor) -> Tensor:
        """Return pixels in about [-1, 1]."""
        latents = latents.to(self.device, self.autoencoder.dtype)
        pixels: Tensor = self.autoencoder.decode(
            latents / self.autoencoder.config.scaling_factor
        ).sample
        return pixels

    def encode_text(self, prompts: Sequence[str]) -> Text:
        """Return the last hidden states after the final layer norm."""
        tower = self.towers[0]
        return Text(tower.encoder(tower.tokenize(prompts)).last_hidden_state)

    def denoise(
        self, noisy: Tensor, t: Tensor, text: Text, conditions: Conditions | None = None
    ) -> Tensor:
        """Run the U-Net."""
        noisy, t = noisy.to(self.device, self.dtype), t.to(self.device)
        embeds = text.embeds.to(self.device, self.dtype)
        prediction: Tensor = self.denoiser(
            noisy, t, encoder_hidden_states=embeds, return_dict=False
        )[0]
        return prediction

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int]:
        """Return (channels, height / 8, width / 8) for the usual autoencoder."""
        factor = 2 ** (len(self.autoencoder.config.block_out_channels) - 1)
        for side in (width, height):
            if side <= 0 or side % self.size_step:
                raise UsageError(
                    f"picture size is {width}x{height}; both sides must be multiples of "
                    f"{self.size_step}"
                )
        return self.autoencoder.config.latent_channels, height // factor, width // factor

    @property
    def resolution(self) -> int:
        """Return the U-Net's sample size in pixels."""
        factor = 2 ** (len(self.autoencoder.config.block_out_channels) - 1)
        side: int = self.denoiser.config.sample_size * factor
        return side

    @property
    def size_step(self) -> int:
        """Return autoencoder factor x U-Net factor, at most an eighth of the resolution."""
        factor = 2 ** (len(self.autoencoder.config.block_out_channels) - 1)
        step: int = factor * 2 ** (len(self.denoiser.config.block_out_channels) - 1)
        return step
