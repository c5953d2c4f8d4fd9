"""The settings of DreamBooth."""

from __future__ import annotations

from typing import Literal

from personae.techniques.technique_config import TechniqueConfig


class DreamBoothConfig(TechniqueConfig):
    """Settings of DreamBooth."""

    title = "DreamBooth"

    text_encoder: bool = False
    """Also fine-tune the text encoders."""
    weight_precision: Literal["fp32", "bf16_stochastic", "bf16_kahan"] = "fp32"
    """Format of what is trained. bf16 halves it; updates too small for it are kept by rounding at
    random, right on average, or by Kahan summation (two more bytes a weight, repeatable sums)."""

    offload: bool = False
    """Keep what is trained, its gradients and the optimiser's states in the host's memory and
    update there; the device holds the weights the network computes with. For GPUs short of
    memory; without one it changes nothing."""

    @property
    def rounding(self) -> str:
        """Return how the optimiser writes the weights."""
        return self.weight_precision.removeprefix("bf16_").replace("fp32", "nearest")
