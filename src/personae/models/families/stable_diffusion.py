"""Stable Diffusion 1.x and 2.x: one CLIP text encoder, a U-Net with cross-attention, eps or v."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from personae.core.devices import HOST
from personae.models.text import Conditions, Text
from personae.models.toys import tiny_stable_diffusion
from personae.models.unet_family import UNetFamily
from personae.models.weights import sources


class StableDiffusion(UNetFamily):
    """A loaded Stable Diffusion 1.x or 2.x.

    Source: Rombach et al. 2022, arXiv:2112.10752.
    """

    name = "stable_diffusion"
    file_layouts = ("sd1", "sd2")
    pipeline = StableDiffusionPipeline
    text_encoders = 1
    file_parts = {
        "denoiser": ("model.diffusion_model.",),
        "text encoder": ("cond_stage_model.",),
        "autoencoder": ("first_stage_model.",),
    }
    left_out = ("safety_checker", "feature_extractor")

    @classmethod
    def recognises(cls, source: str | Path) -> bool:
        """Accept folders and hub ids of StableDiffusionPipeline, and LDM single files of it."""
        if sources.is_single_file(source):
            keys = sources.checkpoint_keys(source)
            others = ("conditioner.", "model.diffusion_model.label_emb.")  # of later versions
            return "model.diffusion_model.input_blocks.0.0.weight" in keys and not any(
                key.startswith(others) for key in keys
            )
        return sources.pipeline_class(source) == "StableDiffusionPipeline"

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
