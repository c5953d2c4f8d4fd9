"""FLUX.2 klein: one language model as text encoder, double and single blocks, rectified flow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self, cast

import torch
from torch import Tensor
from torch.nn import functional

from personae.core.devices import HOST
from personae.errors import BaseError
from personae.models.chat_tower import ChatTower
from personae.models.flow_family import FlowFamily, flow_path, frozen
from personae.models.targets import TargetSets
from personae.models.text import Conditions, Text
from personae.models.toys import tiny_flux2
from personae.models.weights import pipelines, sources
from personae.models.weights.fingerprint import fingerprint

if TYPE_CHECKING:
    from diffusers import Flux2KleinPipeline

MOST_TOKENS = 512  # of a prompt in its chat; max_sequence_length of diffusers' pipeline
PATCH = 2
HEADS_OF_4B = 24  # of klein 4B's transformer; 9B has 32
_DEV = "Flux2Pipeline"
_DOUBLE, _SINGLE = r"^transformer_blocks\.\d+\.", r"^single_transformer_blocks\.\d+\."


@dataclass(eq=False)
class Flux2(FlowFamily):
    """A loaded FLUX.2 klein, of 4B or 9B.

    Source: github.com/black-forest-labs/flux2; classes and conventions are those of diffusers'
    Flux2KleinPipeline. Latents are patches of 2 x 2 of the autoencoder's, each channel with mean 0
    and deviation 1 by the running statistics of its batch norm. The transformer reads all 512
    places of a prompt, its padding too, in a stream of its own through the double blocks.

    Attributes:
        is_distilled: draws in few steps and without guidance, as its pipeline's settings say.
    """

    is_distilled: bool = False

    name = "flux2"
    pipeline = "Flux2KleinPipeline"
    denoiser_class = "Flux2Transformer2DModel"
    diffusers_needed = (0, 38)  # the first that reads LoRA files of klein under all of its names
    hub_id = "black-forest-labs/FLUX.2-klein-base-4B"
    overflows_in = frozenset({torch.float16})
    targets = TargetSets(
        sets={
            "attention": (
                rf"{_DOUBLE}attn\.to_(q|k|v|out\.0)$|{_SINGLE}attn\.(to_qkv_mlp_proj|to_out)$"
            ),
            "feed_forward": rf"{_DOUBLE}ff\.linear_(in|out)$",
            "text_stream": (
                rf"{_DOUBLE}(attn\.(add_(q|k|v)_proj|to_add_out)|ff_context\.linear_(in|out))$"
            ),
            "modulation": r"^(double|single)_stream_modulation(_img|_txt)?\.linear$",
            "embedders": r"^(x|context)_embedder$|^time_guidance_embed\.\w+\.linear_[12]$",
        },
        text_keys=rf"{_DOUBLE}attn\.add_k_proj$",
        text_values=rf"{_DOUBLE}attn\.add_v_proj$",
        self_keys=rf"{_DOUBLE}attn\.to_k$",
        self_values=rf"{_DOUBLE}attn\.to_v$",
        encoder=r"self_attn\.(q|k|v|o)_proj$",
    )

    @classmethod
    def recognises(cls, source: str | Path) -> bool:
        """Accept folders and hub ids of Flux2KleinPipeline; `load` refuses those of dev."""
        if sources.is_single_file(source):
            return False
        return sources.pipeline_class(source) in (cls.pipeline, _DEV)

    @classmethod
    def load(
        cls,
        source: str | Path,
        device: torch.device,
        dtype: torch.dtype,
        *,
        denoiser_unloaded: bool = False,
    ) -> Self:
        """Load straight into `dtype`, tensor by tensor; FLUX.2 dev is refused before."""
        if sources.pipeline_class(source) == _DEV:
            raise BaseError(
                f"base '{source}' is FLUX.2 dev, whose text encoder of 24B is not read here; use "
                f"FLUX.2 klein, such as {cls.hub_id}"
            )
        return super().load(source, device, dtype, denoiser_unloaded=denoiser_unloaded)

    @classmethod
    def from_pipeline(
        cls, pipe: Flux2KleinPipeline, source: str, device: torch.device, dtype: torch.dtype
    ) -> Self:
        """Take a diffusers pipeline's own modules as a base; they are frozen and moved."""
        frozen((pipe.transformer, pipe.text_encoder, pipe.vae), device, dtype)
        config = dict(pipe.scheduler.config)
        length = min(MOST_TOKENS, pipe.tokenizer.model_max_length)
        return cls(
            denoiser=pipe.transformer,
            autoencoder=pipe.vae,
            towers=[ChatTower(pipe.tokenizer, pipe.text_encoder, length, enable_thinking=False)],
            path=flow_path(config, patch=1),
            scheduler_config=config,
            device=device,
            dtype=dtype,
            source=source,
            fingerprint=fingerprint(pipe.transformer),
            is_distilled=pipe.config.is_distilled,
        )

    @classmethod
    def tiny(cls, seed: int = 0) -> list[Self]:
        """Return a base of one block of each kind, float32, on the host."""
        if not pipelines.has_diffusers(cls.diffusers_needed):
            return []
        return [cls.from_pipeline(tiny_flux2(seed), "tiny-flux2", HOST, torch.float32)]

    @property
    def distilled_from(self) -> str | None:
        """Name the base of the same size where this one is distilled."""
        if not self.is_distilled:
            return None
        size = "9B" if self.denoiser.config.num_attention_heads > HEADS_OF_4B else "4B"
        return f"black-forest-labs/FLUX.2-klein-base-{size}"

    def is_guided(self, scale: float) -> bool:
        """Say no where the base was distilled: its predictions are guided already."""
        return scale > 1 and not self.is_distilled

    def drawing_shift(self, steps: int, shape: Sequence[int]) -> float:
        """Return e^mu, mu as measured by the base's authors for so many tokens and steps.

        It is more than the path's, which the scheduler's settings say and which is trained with.
        """
        if not self.scheduler_config.get("use_dynamic_shifting"):
            return self.path.shift_at(shape)
        from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu

        return math.exp(compute_empirical_mu(shape[-2] * shape[-1], steps))

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Return patches of the mean of the posterior, normalised; the mean makes a cache exact."""
        pixels = pixels.to(self.device, self.autoencoder.dtype)
        mode = self.autoencoder.encode(pixels).latent_dist.mode().float()
        mean, deviation = self._statistics
        return (functional.pixel_unshuffle(mode, PATCH) - mean) / deviation

    def decode_image(self, latents: Tensor) -> Tensor:
        """Return pixels in about [-1, 1]."""
        mean, deviation = self._statistics
        patches = latents.to(self.device, self.autoencoder.dtype) * deviation + mean
        whole = functional.pixel_shuffle(patches, PATCH).to(self.autoencoder.dtype)
        pixels: Tensor = self.autoencoder.decode(whole).sample
        return pixels

    @property
    def _statistics(self) -> tuple[Tensor, Tensor]:
        """Return mean and deviation of each channel of patches, (1, c, 1, 1) and float32."""
        norm = self.autoencoder.bn
        mean = norm.running_mean.float()[None, :, None, None]
        variance = norm.running_var.float()[None, :, None, None]
        return mean, (variance + self.autoencoder.config.batch_norm_eps).sqrt()

    def encode_text(self, prompts: Sequence[str]) -> Text:
        """Return the states of three layers side by side, of every place, (b, 512, 3 d)."""
        tower = cast(ChatTower, self.towers[0])  # `from_pipeline` made it
        rows = tower.rows(prompts)
        layers = text_layers(len(tower.layers))
        ids = tower.padded(rows, tower.length)
        return Text(torch.cat(tower.states(ids, layers, tuple(map(len, rows))), dim=-1))

    def denoise(
        self, noisy: Tensor, t: Tensor, text: Text, conditions: Conditions | None = None
    ) -> Tensor:
        """Run the transformer on a token for each patch."""
        noisy = noisy.to(self.device, self.dtype)
        embeds = text.embeds.to(self.device, self.dtype)
        height, width = noisy.shape[-2:]
        answer: Tensor = self.denoiser(
            hidden_states=noisy.flatten(2).transpose(1, 2),
            encoder_hidden_states=embeds,
            timestep=t.to(self.device),
            img_ids=self._places(1, height, width, 1),
            txt_ids=self._places(1, 1, 1, embeds.shape[1]),
            return_dict=False,
        )[0]
        return answer.transpose(1, 2).reshape(noisy.shape)

    def _places(self, *counts: int) -> Tensor:
        """Return each place of a block with `counts` along time, row, column, word, (n, 4)."""
        axes = [torch.arange(count, device=self.device) for count in counts]
        return torch.cartesian_prod(*axes)

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int]:
        """Return (4 x channels, height / 16, width / 16) for the usual autoencoder."""
        channels, rows, columns = super().latent_shape(width, height)
        return channels * PATCH**2, rows // PATCH, columns // PATCH


def text_layers(depth: int) -> list[int]:
    """Return the layers of an encoder of `depth` whose states are read, counted from 0.

    They end its first three quarters: of 36 layers the 9th, 18th and 27th, and of 40 the 10th, 20th
    and 30th, as in diffusers' pipelines.

    Raises:
        BaseError: the encoder has no quarters.
    """
    if depth % 4:
        raise BaseError(
            f"the text encoder of this base has {depth} layers, and FLUX.2 reads it at three "
            "quarters; expected a multiple of 4, as the 36 of Qwen3 4B and 8B; fetch the base again"
        )
    return [depth * quarter // 4 - 1 for quarter in (1, 2, 3)]
