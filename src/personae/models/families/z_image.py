"""Z-Image: one language model as text encoder, a single-stream transformer, rectified flow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self, cast

import torch
from torch import Tensor

from personae.core.devices import HOST
from personae.models.chat_tower import ChatTower
from personae.models.flow_family import FlowFamily, flow_path, frozen
from personae.models.original_names import OriginalNames
from personae.models.targets import TargetSets
from personae.models.text import Conditions, Text
from personae.models.toys import tiny_z_image
from personae.models.weights import pipelines
from personae.models.weights.fingerprint import fingerprint

if TYPE_CHECKING:
    from diffusers import ZImagePipeline

MOST_TOKENS = 512  # of a prompt in its chat; max_sequence_length of diffusers' pipeline
TEXT_LAYER = -2  # the next to last of the encoder, as in diffusers' pipeline
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
    pipeline = "ZImagePipeline"
    denoiser_class = "ZImageTransformer2DModel"
    diffusers_needed = (0, 39)  # the first whose padding tokens are not whatever memory held
    hub_id = "Tongyi-MAI/Z-Image"
    # Lumina 2, which is built alike, has others.
    single_file_marks = ("layers.0.adaLN_modulation.0.weight", "cap_embedder.1.weight")
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
    def from_pipeline(
        cls, pipe: ZImagePipeline, source: str, device: torch.device, dtype: torch.dtype
    ) -> Self:
        """Take a diffusers pipeline's own modules as a base; they are frozen and moved."""
        frozen((pipe.transformer, pipe.text_encoder, pipe.vae), device, dtype)
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
            path=flow_path(config, cls.patch),
            scheduler_config=config,
            device=device,
            dtype=dtype,
            source=source,
            fingerprint=fingerprint(pipe.transformer),
        )

    @classmethod
    def tiny(cls, seed: int = 0) -> list[Self]:
        """Return a base of two layers and one refiner of each kind, float32, on the host."""
        if not pipelines.has_diffusers(cls.diffusers_needed):
            return []
        return [cls.from_pipeline(tiny_z_image(seed), "tiny-z-image", HOST, torch.float32)]

    @property
    def distilled_from(self) -> str | None:
        """Take a base with the scheduler of Z-Image-Turbo for it."""
        return self.hub_id if self.scheduler_config.get("shift") == TURBO_SHIFT else None

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
