"""FLUX.1: CLIP and T5 as text encoders, a transformer of two kinds of blocks, rectified flow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from personae.core.devices import HOST
from personae.models.families.flux1_names import NAMES
from personae.models.flow_family import FlowFamily, flow_path, frozen
from personae.models.t5_tower import T5Tower
from personae.models.targets import TargetSets
from personae.models.text import Conditions, Frame, Text
from personae.models.text_tower import TextTower
from personae.models.toy_flux1 import tiny_flux
from personae.models.weights.fingerprint import fingerprint

if TYPE_CHECKING:
    from diffusers import FluxPipeline

MOST_TOKENS = 512  # of T5; max_sequence_length of diffusers' pipeline
PATCH = 2
TRAINING_GUIDANCE = 1.0
"""Told to a network distilled for guidance while it is trained: it keeps what guidance means.

Source: the advice of the base's authors, github.com/black-forest-labs/flux, issue 79.
"""
_DOUBLE = r"^transformer_blocks\.\d+\."
_SINGLE = r"^single_transformer_blocks\.\d+\."
_BOTH = r"^(single_)?transformer_blocks\.\d+\."


class Flux1(FlowFamily):
    """A loaded FLUX.1: dev, schnell, Krea-dev and others of the shape.

    Source: Black Forest Labs 2024, github.com/black-forest-labs/flux; classes and conventions are
    those of diffusers' FluxPipeline. A guidance scale is told to the network where it was distilled
    for that, so that a picture takes one pass and no negative prompt is read; otherwise guidance is
    classifier-free, as with every family.
    """

    name = "flux1"
    pipeline = "FluxPipeline"
    denoiser_class = "FluxTransformer2DModel"
    diffusers_needed = (0, 30)
    hub_id = "black-forest-labs/FLUX.1-dev"
    # FLUX.2 has no vector_in.
    single_file_marks = ("double_blocks.0.img_attn.qkv.weight", "vector_in.in_layer.weight")
    # Weights of T5 reach beyond fp16, and transformers keeps those apart in its own loading alone.
    overflows_in = frozenset({torch.float16})
    original_names = NAMES
    targets = TargetSets(
        sets={
            "attention": _BOTH + r"attn\.(to_(q|k|v|out\.0)|add_(q|k|v)_proj|to_add_out)$",
            "feed_forward": rf"{_DOUBLE}ff(_context)?\.net\.(0\.proj|2)$|{_SINGLE}proj_(mlp|out)$",
            "modulation": _BOTH + r"norm1?(_context)?\.linear$",
        },
        text_keys=_DOUBLE + r"attn\.add_k_proj$",
        text_values=_DOUBLE + r"attn\.add_v_proj$",
        self_keys=_BOTH + r"attn\.to_k$",
        self_values=_BOTH + r"attn\.to_v$",
        encoder=r"(self_attn\.(q|k|v|out)_proj|SelfAttention\.(q|k|v|o))$",
    )

    @classmethod
    def from_pipeline(
        cls, pipe: FluxPipeline, source: str, device: torch.device, dtype: torch.dtype
    ) -> Self:
        """Take a diffusers pipeline's own modules as a base; they are frozen and moved."""
        frozen((pipe.transformer, pipe.text_encoder, pipe.text_encoder_2, pipe.vae), device, dtype)
        config = dict(pipe.scheduler.config)
        return cls(
            denoiser=pipe.transformer,
            autoencoder=pipe.vae,
            towers=[
                TextTower(pipe.tokenizer, pipe.text_encoder),
                T5Tower(pipe.tokenizer_2, pipe.text_encoder_2, MOST_TOKENS),
            ],
            path=flow_path(config, cls.patch),
            scheduler_config=config,
            device=device,
            dtype=dtype,
            source=source,
            fingerprint=fingerprint(pipe.transformer),
        )

    @classmethod
    def tiny(cls, seed: int = 0) -> list[Self]:
        """Return a base that is told the guidance scale, as FLUX.1-dev is."""
        return [cls.from_pipeline(tiny_flux(True, seed), "tiny-flux1", HOST, torch.float32)]

    @property
    def _told_guidance(self) -> bool:
        told: bool = self.denoiser.config.guidance_embeds
        return told

    @property
    def distilled_from(self) -> str | None:
        """Take a base that is told no guidance, with a fixed shift, for FLUX.1-schnell."""
        fixed = not self.scheduler_config.get("use_dynamic_shifting")
        return self.hub_id if fixed and not self._told_guidance else None

    def is_guided(self, scale: float) -> bool:
        """Say no where the network is told the scale, or was distilled to need none."""
        return scale > 1 and not self._told_guidance and self.distilled_from is None

    def conditions(self, frames: Sequence[Frame], guidance: float | None = None) -> Conditions:
        """Return the guidance scale for each row, where the network is told one."""
        if not self._told_guidance:
            return Conditions()
        scale = TRAINING_GUIDANCE if guidance is None else guidance
        return Conditions({"guidance": torch.full((len(frames),), scale)})

    def encode_text(self, prompts: Sequence[str]) -> Text:
        """Return the states of T5, and of CLIP the one where the prompt ends.

        transformers looks for the largest id instead where an encoder's settings have the end mark
        of old, as CLIP-L's do, and finds placeholders.
        """
        clip, t5 = self.towers
        rows = clip.rows(prompts)
        states: Any = clip.encoder(clip.padded(rows, clip.length))
        ends = [row.index(clip.tokenizer.eos_token_id, 1) for row in rows]
        pooled = states.last_hidden_state[list(range(len(ends))), ends]
        return Text(t5.encoder(t5.tokenize(prompts)).last_hidden_state, pooled)

    def denoise(
        self, noisy: Tensor, t: Tensor, text: Text, conditions: Conditions | None = None
    ) -> Tensor:
        """Run the transformer on packed latents: a token for each 2 x 2 of them."""
        height, width = (side // PATCH for side in noisy.shape[-2:])
        if conditions is None:
            side = self.size_step
            frame = Frame.whole(width * side, height * side)
            conditions = self.conditions([frame] * len(noisy))
        guidance = conditions.values.get("guidance")
        text = text.to(self.device, self.dtype)
        answer = self.denoiser(
            hidden_states=packed(noisy.to(self.device, self.dtype)),
            timestep=t.to(self.device),
            guidance=None if guidance is None else guidance.to(self.device),
            pooled_projections=text.pooled,
            encoder_hidden_states=text.embeds,
            txt_ids=torch.zeros(text.embeds.shape[1], 3, device=self.device, dtype=self.dtype),
            img_ids=places(height, width).to(self.device, self.dtype),
            return_dict=False,
        )[0]
        return unpacked(answer, height, width)


def packed(latents: Tensor) -> Tensor:
    """Return tokens (b, h/2 * w/2, 4c) of latents (b, c, h, w); rows of tokens come first."""
    b, c, height, width = latents.shape
    patches = latents.reshape(b, c, height // PATCH, PATCH, width // PATCH, PATCH)
    return patches.permute(0, 2, 4, 1, 3, 5).reshape(b, -1, c * PATCH * PATCH)


def unpacked(tokens: Tensor, height: int, width: int) -> Tensor:
    """Return the latents (b, c, 2 height, 2 width) whose tokens these are."""
    b, _, numbers = tokens.shape
    c = numbers // (PATCH * PATCH)
    patches = tokens.reshape(b, height, width, c, PATCH, PATCH)
    return patches.permute(0, 3, 1, 4, 2, 5).reshape(b, c, height * PATCH, width * PATCH)


def places(height: int, width: int) -> Tensor:
    """Return the places (height * width, 3) of tokens: 0, row, column."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).reshape(-1, 3)
