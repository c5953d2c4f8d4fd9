"""The settings of LoRA."""

from __future__ import annotations

import math

from pydantic import Field

from personae.techniques.technique_config import TechniqueConfig


class LoRAConfig(TechniqueConfig):
    """Settings of LoRA."""

    title = "LoRA"

    rank: int = Field(default=16, ge=1, le=16_384)
    """Rank of the update of each layer. Typical: 4 to 64."""
    alpha: float | None = Field(default=None, gt=0, le=1e5)
    """The update is scaled by alpha / rank. Default: the rank, so that the scale is 1."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the inputs of each update dropped while training."""
    targets: str = "attention"
    """Adapted layers: target sets of the base joined by + (attention, attention+feed_forward), or
    all: attention, feed_forward and convolutions. cross_attention is the paper's choice."""
    text_encoder: bool = False
    """Also adapt the attention of the text encoders."""
    layers: list[str] | None = None
    """Exact names of the adapted layers (`denoiser.mid_block.attentions.0.proj_in`), in place of
    targets and text_encoder; a layer narrower than rank gets as many ranks as it is wide."""
    rank_stabilised: bool = False
    """Scale by alpha / sqrt(rank) (rsLoRA, arXiv:2312.03732, equation 4)."""
    up_learning_rate_ratio: float = Field(default=1.0, ge=1, le=1e4)
    """Learning rate of B relative to A (LoRA+, arXiv:2402.12354, section 4; they advise 16)."""

    @property
    def scale(self) -> float:
        """Return the factor of the update."""
        alpha = self.rank if self.alpha is None else self.alpha
        return alpha / (math.sqrt(self.rank) if self.rank_stabilised else self.rank)
