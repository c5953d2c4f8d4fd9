"""LoRA: a low-rank update beside each adapted layer.

Source: Hu et al. 2021, arXiv:2106.09685, equation 3: W x + (alpha / rank) B A x, B = 0 at start.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from personae.errors import UsageError
from personae.families.base import Family
from personae.hooks import layers_matching
from personae.techniques.base import Recommended, Technique, TechniqueConfig, key

TARGETS = {
    "cross_attention": ("cross_attention",),
    "attention": ("attention",),
    "attention+feed_forward": ("attention", "feed_forward"),
    "all": ("attention", "feed_forward", "convolutions"),
}
TEXT_TARGETS = r"self_attn\.(q|k|v|out)_proj$"


class LoRAConfig(TechniqueConfig):
    """Settings of LoRA."""

    rank: int = Field(16, ge=1)
    """Rank of the update of each layer. Typical: 4 to 64."""
    alpha: float | None = Field(None, gt=0)
    """The update is scaled by alpha / rank. Default: the rank, so that the scale is 1."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the inputs of each update dropped while training."""
    targets: Literal["cross_attention", "attention", "attention+feed_forward", "all"] = "attention"
    """Adapted layers. cross_attention is the paper's choice; all adds convolutions."""
    text_encoder: bool = False
    """Also adapt the attention of the text encoders."""
    rank_stabilised: bool = False
    """Scale by alpha / sqrt(rank) (rsLoRA, arXiv:2312.03732, equation 4)."""
    up_learning_rate_ratio: float = Field(1.0, ge=1)
    """Learning rate of B relative to A (LoRA+, arXiv:2402.12354, section 4; they advise 16)."""

    @property
    def scale(self) -> float:
        """Return the factor of the update."""
        alpha = self.rank if self.alpha is None else self.alpha
        return alpha / (math.sqrt(self.rank) if self.rank_stabilised else self.rank)


class LowRank(nn.Module):
    """The update of one layer: `down` to `rank` channels, `up` to the layer's own."""

    def __init__(
        self, layer: nn.Linear | nn.Conv2d, rank: int, dropout: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.convolution: dict[str, Any] | None = None
        if isinstance(layer, nn.Conv2d):
            self.convolution = {"stride": layer.stride, "padding": layer.padding}
            down = (rank, layer.in_channels, *layer.kernel_size)
            up = (layer.out_channels, rank, 1, 1)
        else:
            down, up = (rank, layer.in_features), (layer.out_features, rank)
        # Kaiming-uniform with a = sqrt(5), as in the reference implementation of the paper.
        bound = 1 / math.sqrt(math.prod(down[1:]))
        device = layer.weight.device
        start = torch.empty(down).uniform_(-bound, bound, generator=generator)
        self.down = nn.Parameter(start.to(device))
        self.up = nn.Parameter(torch.zeros(up, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """Return the unscaled update of `x`, computed in the format of `x`."""
        x = functional.dropout(x, self.dropout, self.training)
        down, up = self.down.to(x.dtype), self.up.to(x.dtype)
        if self.convolution is None:
            return functional.linear(functional.linear(x, down), up)
        return functional.conv2d(functional.conv2d(x, down, **self.convolution), up)


class LoRA(Technique):
    """Low-rank updates of attention (and more) layers."""

    name = "lora"
    title = "LoRA"
    source = "https://arxiv.org/abs/2106.09685"
    Config = LoRAConfig
    recommended = Recommended(
        learning_rate=1e-3,
        weight_decay=1e-2,
        steps_per_picture=300,
        min_steps=1600,
        max_steps=4000,
    )

    def __init__(self, config: LoRAConfig, base: Family, generator: torch.Generator) -> None:
        super().__init__(config, base, generator)
        self.layers = {
            f"denoiser.{name}": layer
            for target in TARGETS[config.targets]
            for name, layer in layers_matching(base.denoiser, base.targets.sets[target]).items()
        }
        if config.text_encoder:
            for network, encoder in base.networks.items():
                if network != "denoiser":
                    found = layers_matching(encoder, TEXT_TARGETS)
                    self.layers |= {f"{network}.{name}": layer for name, layer in found.items()}
        narrowest = min(min(layer.weight.shape[:2]) for layer in self.layers.values())
        if config.rank > narrowest:
            raise UsageError(
                f"lora.rank is {config.rank}; it must be in [1, {narrowest}] (the width of the "
                "narrowest adapted layer)"
            )
        self.updates = nn.ModuleDict(
            {
                key(name): LowRank(layer, config.rank, config.dropout, generator)
                for name, layer in self.layers.items()
            }
        )

    @property
    def trains_text(self) -> bool:
        """True when the text encoders are adapted too."""
        return self.config.text_encoder

    def inject(self) -> Self:
        """Hook each adapted layer."""
        for name, layer in self.layers.items():
            update = partial(self._add, self.updates[key(name)])
            self.attach(layer.register_forward_hook(update))
        return self

    def _add(
        self, update: LowRank, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor
    ) -> Tensor:
        scale = self.config.scale
        change = update if scale == 1 else (lambda x: update(x) * scale)
        return self.add_scaled(output, inputs[0], change)

    def parameter_groups(self, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
        """Give B its own learning rate when LoRA+ is on."""
        ratio = self.config.up_learning_rate_ratio
        return [
            {
                "params": [getattr(update, side) for update in self.updates.values()],
                "lr": learning_rate * factor,
                "weight_decay": weight_decay,
            }
            for side, factor in (("down", 1.0), ("up", ratio))
        ]
