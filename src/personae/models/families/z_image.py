"""Z-Image: one language model as text encoder, a single-stream transformer, rectified flow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self, cast

import torch
from torch import Tensor

from personae.core.devices import HOST
from personae.errors import UsageError
from personae.models.chat_tower import ChatTower
from personae.models.flow_family import FlowFamily, flow_path
from personae.models.original_names import OriginalNames
from personae.models.targets import TargetSets
from personae.models.text import Conditions, Text
from personae.models.toys import tiny_z_image
from personae.models.weights import pipelines, sources
from personae.models.weights.denoiser_file import denoiser_of, folder_beside
from personae.models.weights.fingerprint import fingerprint
from personae.models.weights.unloaded import Unloaded, readable_again

if TYPE_CHECKING:
    from diffusers import ZImagePipeline

DIFFUSERS = (0, 39)  # the first whose padding tokens are not whatever memory held
MOST_TOKENS = 512  # of a prompt in its chat; max_sequence_length of diffusers' pipeline
TEXT_LAYER = -2  # the next to last of the encoder, as in diffusers' pipeline
PATCH = 2
HUB_ID = "Tongyi-MAI/Z-Image"
MARKS = ("layers.0.adaLN_modulation.0.weight", "cap_embedder.1.weight")
"""Ends of names in a single file of it; Lumina 2, which is built alike, has others."""
TURBO_SHIFT = 3.0  # of the scheduler of Z-Image-Turbo, by which alone it differs; the base has 6

_BLOCKS = ("layers", "noise_refiner", "context_refiner")
_ATTENTION = {
    "qkv": ("to_q", "to_k", "to_v"),
    "out": ("to_out.0",),
    "q_norm": ("norm_q",),
    "k_norm": ("norm_k",),
}
NAMES = OriginalNames(
    {
        f"{block}.#.attention.{original}": tuple(f"{block}.#.attention.{part}" for part in parts)
        for block in _BLOCKS
        for original, parts in _ATTENTION.items()
    }
    | {
        "x_embedder": ("all_x_embedder.2-1",),
        "final_layer.linear": ("all_final_layer.2-1.linear",),
        "final_layer.adaLN_modulation.1": ("all_final_layer.2-1.adaLN_modulation.1",),
    }
)
"""Those of Z-Image's own code, as in its single files.

Source: `convert_z_image_transformer_checkpoint_to_diffusers` of diffusers 0.42.
"""


class ZImage(FlowFamily):
    """A loaded Z-Image.

    Source: Z-Image Team 2025, arXiv:2511.22699; classes and conventions are those of diffusers'
    ZImagePipeline. Times run from 0 (picture) to 1 (noise) as in every flow; the network counts the
    other way round, and predicts x0 - noise. A guidance scale is one more here than it is in the
    pipeline, where 0 means none.

    In one stream text and picture are read together, but for the context refiners before it: those
    are the layers that read the text alone.
    """

    name = "z_image"
    denoiser_component = "transformer"
    overflows_in = frozenset({torch.float16})
    original_names = NAMES
    targets = TargetSets(
        sets={
            "attention": r"^layers\.\d+\.attention\.to_(q|k|v|out\.0)$",
            "feed_forward": r"^layers\.\d+\.feed_forward\.w[123]$",
            "refiners": r"_refiner\.\d+\.(attention\.to_(q|k|v|out\.0)|feed_forward\.w[123])$",
            "modulation": r"adaLN_modulation\.\d$",
        },
        text_keys=r"^context_refiner\.\d+\.attention\.to_k$",
        text_values=r"^context_refiner\.\d+\.attention\.to_v$",
        self_keys=r"^layers\.\d+\.attention\.to_k$",
        self_values=r"^layers\.\d+\.attention\.to_v$",
        encoder=r"self_attn\.(q|k|v|o)_proj$",
    )

    @classmethod
    def recognises(cls, source: str | Path) -> bool:
        """Accept folders and hub ids of ZImagePipeline, and single files of its transformer."""
        if sources.is_single_file(source):
            keys = sources.checkpoint_keys(source)
            return all(any(key.endswith(mark) for key in keys) for mark in MARKS)
        return sources.pipeline_class(source) == "ZImagePipeline"

    @classmethod
    def load(
        cls,
        source: str | Path,
        device: torch.device,
        dtype: torch.dtype,
        *,
        denoiser_unloaded: bool = False,
    ) -> Self:
        """Load straight into `dtype`, tensor by tensor.

        A single file holds the transformer; the rest lies in a folder beside it.
        """
        pipelines.require_diffusers(DIFFUSERS, source)
        from diffusers import ZImagePipeline

        part = cls.denoiser_component
        if sources.is_single_file(source):
            folder = folder_beside(Path(source), ZImagePipeline.__name__, HUB_ID)
            kind = "ZImageTransformer2DModel"
            denoiser = denoiser_of(Path(source), folder / part, kind, NAMES, dtype)
            pipe = pipelines.load_pipeline(ZImagePipeline, folder, dtype, transformer=denoiser)
            return cls.from_pipeline(pipe, str(source), device, dtype)
        unloaded = {part} if denoiser_unloaded else ()
        pipe = pipelines.load_pipeline(
            ZImagePipeline, source, dtype, unloaded=unloaded, device=device
        )
        base = cls.from_pipeline(pipe, str(source), device, dtype)
        if denoiser_unloaded:
            base.unloaded = Unloaded(list(readable_again(Path(source), {part: pipe.transformer})))
            base.unloaded.unload()
            base.fingerprint = fingerprint(pipe.transformer, Path(source) / part)
        return base

    @classmethod
    def from_pipeline(
        cls, pipe: ZImagePipeline, source: str, device: torch.device, dtype: torch.dtype
    ) -> Self:
        """Take a diffusers pipeline's own modules as a base; they are frozen and moved."""
        for network in (pipe.transformer, pipe.text_encoder, pipe.vae):
            network.requires_grad_(False).eval().to(device)
            if network.dtype != dtype:
                network.to(dtype)
        # Made at the first call otherwise, and that may be one on tensors without values.
        rope = pipe.transformer.rope_embedder
        tables = rope.precompute_freqs_cis(rope.axes_dims, rope.axes_lens, theta=rope.theta)
        rope.freqs_cis = [table.to(device) for table in tables]
        config = dict(pipe.scheduler.config)
        tower = ChatTower(pipe.tokenizer, pipe.text_encoder, MOST_TOKENS, enable_thinking=True)
        return cls(
            denoiser=pipe.transformer,
            autoencoder=pipe.vae,
            towers=[tower],
            path=flow_path(config, PATCH),
            scheduler_config=config,
            device=device,
            dtype=dtype,
            source=source,
            fingerprint=fingerprint(pipe.transformer),
        )

    @classmethod
    def tiny(cls, seed: int = 0) -> list[Self]:
        """Return a base of two layers and one refiner of each kind, float32, on the host."""
        if not pipelines.has_diffusers(DIFFUSERS):
            return []
        return [cls.from_pipeline(tiny_z_image(seed), "tiny-z-image", HOST, torch.float32)]

    @property
    def distilled_from(self) -> str | None:
        """Take a base with the scheduler of Z-Image-Turbo for it."""
        return HUB_ID if self.scheduler_config.get("shift") == TURBO_SHIFT else None

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Return the mean of the posterior, shifted and scaled; the mean makes a cache exact."""
        config = self.autoencoder.config
        pixels = pixels.to(self.device, self.autoencoder.dtype)
        mode = self.autoencoder.encode(pixels).latent_dist.mode().float()
        latents: Tensor = (mode - config.shift_factor) * config.scaling_factor
        return latents

    def decode_image(self, latents: Tensor) -> Tensor:
        """Return pixels in about [-1, 1]."""
        config = self.autoencoder.config
        latents = latents.to(self.device, self.autoencoder.dtype)
        latents = latents / config.scaling_factor + config.shift_factor
        pixels: Tensor = self.autoencoder.decode(latents).sample
        return pixels

    def encode_text(self, prompts: Sequence[str]) -> Text:
        """Return the next to last states of the prompts in their chats, rows of unlike lengths."""
        tower = cast(ChatTower, self.towers[0])  # `from_pipeline` made it
        rows = tower.rows(prompts)
        lengths = tuple(map(len, rows))
        ids = tower.padded(rows, max(lengths))
        (states,) = tower.states(ids, [TEXT_LAYER])
        return Text(states, lengths=lengths)

    def denoise(
        self, noisy: Tensor, t: Tensor, text: Text, conditions: Conditions | None = None
    ) -> Tensor:
        """Run the transformer on lists of single pictures and prompts, as it wants them."""
        pictures = noisy.to(self.device, self.dtype).unsqueeze(2).unbind()  # (c, 1, h, w) each
        prompts = text.to(self.device, self.dtype).unpadded()
        level = 1 - t.to(self.device)
        answers = self.denoiser(list(pictures), level, prompts, return_dict=False)[0]
        return -torch.stack(answers).squeeze(2)

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int]:
        """Return (channels, height / 8, width / 8) for the usual autoencoder."""
        for side in (width, height):
            if side <= 0 or side % self.size_step:
                raise UsageError(
                    f"picture size is {width}x{height}; both sides must be multiples of "
                    f"{self.size_step}"
                )
        factor = self._factor
        return self.autoencoder.config.latent_channels, height // factor, width // factor

    @property
    def _factor(self) -> int:
        factor: int = 2 ** (len(self.autoencoder.config.block_out_channels) - 1)
        return factor

    @property
    def resolution(self) -> int:
        """Return the autoencoder's sample size, 1024; the transformer has none."""
        side: int = self.autoencoder.config.sample_size
        return side

    @property
    def size_step(self) -> int:
        """Return autoencoder factor x patch."""
        return self._factor * PATCH
