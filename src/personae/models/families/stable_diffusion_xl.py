"""Stable Diffusion XL and what was made from it (Illustrious, Pony, NoobAI): two CLIP encoders."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import torch
from diffusers import StableDiffusionXLPipeline
from torch import Tensor

from personae.core.devices import HOST
from personae.errors import BaseError
from personae.models.text import Conditions, Frame, Text
from personae.models.text_tower import outputs_of
from personae.models.toys import tiny_stable_diffusion_xl
from personae.models.unet_family import UNetFamily
from personae.models.weights import sources

TEXT_LAYER: Final = -2  # the next to last of each encoder, without its final norm, as in diffusers
REFINER: Final = "conditioner.embedders.0.model."
ONLY_HERE: Final = ("conditioner.embedders.", "model.diffusion_model.label_emb.")
# Nothing in their tensors tells bases distilled for few steps from those they were made from.
DISTILLED: Final = re.compile(r"turbo|lightning|(?<![a-z])(lcm|tcd|dmd2?|hyper)(?![a-z])")


@dataclass(eq=False)
class StableDiffusionXL(UNetFamily):
    """A loaded Stable Diffusion XL.

    Source: Podell et al. 2023, arXiv:2307.01952; conventions are those of diffusers'
    StableDiffusionXLPipeline. The denoiser is told the size of each picture before it was scaled,
    where the crop begins, and the size of what is shown (section 2.2 there).

    Attributes:
        zeros_for_empty: a prompt without words is zeros, its pooled vector too, and not what the
            encoders make of it: `force_zeros_for_empty_prompt` of the pipeline. It holds for
            captions left out while training and for an empty negative prompt alike.
    """

    zeros_for_empty: bool = True

    name = "stable_diffusion_xl"
    file_layouts = ("sdxl",)
    pipeline = StableDiffusionXLPipeline
    text_encoders = 2
    file_parts = {
        "denoiser": ("model.diffusion_model.",),
        "first text encoder": ("conditioner.embedders.0.transformer.",),
        "second text encoder": ("conditioner.embedders.1.model.",),
        "autoencoder": ("first_stage_model.",),
    }
    left_out = ("feature_extractor", "image_encoder")

    @classmethod
    def recognises(cls, source: str | Path) -> bool:
        """Accept every pipeline of Stable Diffusion XL, and single files; `load` refuses some."""
        if sources.is_single_file(source):
            return any(key.startswith(ONLY_HERE) for key in sources.checkpoint_keys(source))
        return (sources.pipeline_class(source) or "").startswith("StableDiffusionXL")

    @classmethod
    def load(
        cls,
        source: str | Path,
        device: torch.device,
        dtype: torch.dtype,
        *,
        denoiser_unloaded: bool = False,
    ) -> Self:
        """Load straight into `dtype`; what does not draw from text alone is refused before."""
        other = other_use(source)
        if other:
            raise BaseError(f"base '{source}' {other}")
        return super().load(source, device, dtype, denoiser_unloaded=denoiser_unloaded)

    @classmethod
    def from_pipeline(
        cls, pipe: Any, source: str, device: torch.device, dtype: torch.dtype
    ) -> Self:
        """Take a diffusers pipeline's own modules, and what it makes of an empty prompt."""
        if pipe.unet.config.time_cond_proj_dim is not None:
            raise BaseError(
                f"base '{source}' has a U-Net that is told the guidance scale, as latent "
                "consistency models have; use the base that it was made from"
            )
        base = super().from_pipeline(pipe, source, device, dtype)
        base.zeros_for_empty = bool(pipe.config.force_zeros_for_empty_prompt)
        return base

    @classmethod
    def tiny(cls, seed: int = 0) -> list[Self]:
        """Return a base that predicts the noise, float32, on the host."""
        pipe = tiny_stable_diffusion_xl(seed=seed)
        return [cls.from_pipeline(pipe, "tiny-sdxl", HOST, torch.float32)]

    @property
    def distilled_from(self) -> str | None:
        """Go by the name and the scheduler, such as sdxl-turbo's or LCMScheduler."""
        scheduler = self.scheduler_config.get("_class_name", "").removesuffix("Scheduler")
        found = DISTILLED.search(f"{Path(self.source).stem} {scheduler}".lower())
        return f"the base it was made from (this one says '{found[0]}')" if found else None

    @property
    def text_encoding(self) -> tuple[object, ...]:
        """Return the name, and what an empty prompt is."""
        return (self.name, self.zeros_for_empty)

    def encode_text(self, prompts: Sequence[str]) -> Text:
        """Return the next to last states of both encoders, joined, and the second's own vector.

        That vector is taken where the prompt ends. transformers looks for the largest id instead
        where an encoder's settings have the end mark of old, and finds placeholders.
        """
        states = []
        for tower in self.towers:
            encoder: Any = tower.encoder
            rows = tower.rows(prompts)
            # transformers 5 dropped a level from one of its two classes
            layers = getattr(encoder, "text_model", encoder).encoder.layers
            with outputs_of([layers[TEXT_LAYER]]) as found:
                answer = encoder(tower.padded(rows, tower.length))
            states.append(found[0])
        ends = [row.index(tower.tokenizer.eos_token_id, 1) for row in rows]
        pooled: Tensor = encoder.text_projection(
            answer.last_hidden_state[list(range(len(ends))), ends]
        )
        embeds = torch.cat(states, dim=-1)
        if self.zeros_for_empty and 1 in ends:
            empty = torch.tensor([end == 1 for end in ends], device=embeds.device)
            embeds = embeds.masked_fill(empty[:, None, None], 0)
            pooled = pooled.masked_fill(empty[:, None], 0)
        return Text(embeds, pooled)

    def conditions(self, frames: Sequence[Frame], guidance: float | None = None) -> Conditions:
        """Return six numbers for each row: original size, corner and shown size, y before x."""
        rows = [
            [side for pair in (frame.original, frame.corner, frame.size) for side in reversed(pair)]
            for frame in frames
        ]
        return Conditions({"time_ids": torch.tensor(rows, dtype=torch.float32)})

    def denoise(
        self, noisy: Tensor, t: Tensor, text: Text, conditions: Conditions | None = None
    ) -> Tensor:
        """Run the U-Net."""
        if conditions is None:
            height, width = (side * self.latent_side for side in noisy.shape[-2:])
            conditions = self.conditions([Frame.whole(width, height)] * len(noisy))
        noisy, t = noisy.to(self.device, self.dtype), t.to(self.device)
        text = text.to(self.device, self.dtype)
        added = {
            "text_embeds": text.pooled,
            "time_ids": conditions.values["time_ids"].to(self.device),
        }
        prediction: Tensor = self.denoiser(
            noisy,
            t,
            encoder_hidden_states=text.embeds,
            added_cond_kwargs=added,
            return_dict=False,
        )[0]
        return prediction


def other_use(source: str | Path) -> str | None:
    """Return what a base is for besides drawing from text, as the end of a sentence, or None."""
    if sources.is_single_file(source):
        keys = sources.checkpoint_keys(source)
        if any(key.startswith(REFINER) for key in keys):
            return "is the refiner, which finishes pictures of the base; use the base itself"
        return None
    kind, wanted = sources.pipeline_class(source), StableDiffusionXLPipeline.__name__
    if kind == wanted:
        return None
    return f"is {kind}; what draws from text alone is {wanted}, so use the base it was made from"
