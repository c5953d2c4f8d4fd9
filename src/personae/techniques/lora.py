"""LoRA: a low-rank update beside each adapted layer.

Source: Hu et al. 2021, arXiv:2106.09685, equation 3: W x + (alpha / rank) B A x, B = 0 at start.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from personae.core.registry import nearest
from personae.errors import UsageError
from personae.models.family import Family
from personae.models.layers import Layer, layers_matching
from personae.models.recommended import Recommended
from personae.techniques.casts import Casts
from personae.techniques.settings.lora import LoRAConfig
from personae.techniques.technique import Technique, allocated_on, key_of

ALL = ("attention", "feed_forward", "convolutions")


class LowRank(nn.Module):
    """The update of one layer: `down` to `rank` channels, `up` to the layer's own."""

    def __init__(
        self,
        layer: nn.Linear | nn.Conv2d,
        rank: int,
        dropout: float,
        generator: torch.Generator | None,
        device: torch.device,
        casts: Casts,
    ) -> None:
        super().__init__()
        self.dropout, self.casts = dropout, casts
        self.convolution: dict[str, Any] | None = None
        if isinstance(layer, nn.Conv2d):
            self.convolution = {"stride": layer.stride, "padding": layer.padding}
            down: tuple[int, ...] = (rank, layer.in_channels, *layer.kernel_size)
            up: tuple[int, ...] = (layer.out_channels, rank, 1, 1)
        else:
            down, up = (rank, layer.in_features), (layer.out_features, rank)
        start = torch.empty(down, device=None if generator else device)
        if generator:
            # Kaiming-uniform with a = sqrt(5), as in the reference implementation of the paper.
            bound = 1 / math.sqrt(math.prod(down[1:]))
            start.uniform_(-bound, bound, generator=generator)
        self.down = nn.Parameter(start.to(device))
        self.up = nn.Parameter(torch.zeros(up, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """Return the unscaled update of `x`, computed in the format of `x`."""
        x = functional.dropout(x, self.dropout, self.training)
        down, up = (self.casts.of(each, x.dtype) for each in (self.down, self.up))
        if self.convolution is None:
            return functional.linear(functional.linear(x, down), up)
        return functional.conv2d(functional.conv2d(x, down, **self.convolution), up)


class LoRA(Technique):
    """Low-rank updates of attention (and more) layers."""

    name = "lora"
    holder = "updates"
    title = LoRAConfig.title
    source = "https://arxiv.org/abs/2106.09685"
    Config = LoRAConfig
    config: LoRAConfig
    recommended = Recommended(
        learning_rate=1e-4,
        weight_decay=1e-2,
        steps_per_picture=120,
        min_steps=600,
        max_steps=1800,
    )

    def __init__(self, config: LoRAConfig, base: Family, generator: torch.Generator | None) -> None:
        super().__init__(config, base, generator)
        self.layers = self._find_layers(base)
        narrowest = min(widest_rank(layer) for layer in self.layers.values())
        if config.rank > narrowest and config.layers is None:
            raise UsageError(
                f"lora.rank is {config.rank}; it must be in [1, {narrowest}] (the width of the "
                "narrowest adapted layer)"
            )
        self.casts = Casts()
        made = (config.dropout, generator, allocated_on(base, generator), self.casts)
        self.updates = nn.ModuleDict(
            {
                key_of(name): LowRank(layer, min(config.rank, widest_rank(layer)), *made)
                for name, layer in self.layers.items()
            }
        )

    def _find_layers(self, base: Family) -> dict[str, Layer]:
        if self.config.layers is not None:
            return named_layers(base, self.config.layers)
        found = {
            f"denoiser.{name}": layer
            for target in chosen_sets(base, self.config.targets)
            for name, layer in layers_matching(base.denoiser, base.targets.sets[target]).items()
        }
        for network, encoder in base.networks.items():
            if network != "denoiser" and self.config.text_encoder:
                text_layers = layers_matching(encoder, base.targets.encoder)
                found |= {f"{network}.{name}": layer for name, layer in text_layers.items()}
        return found

    @property
    def trains_text(self) -> bool:
        """True when the text encoders are adapted too."""
        return any(not name.startswith("denoiser.") for name in self.layers)

    def inject(self) -> Self:
        """Hook each adapted layer, and where a network that has any begins."""
        for network, module in self.base.networks.items():
            adapted = [self.updates[key_of(name)] for name in self.layers if _is_in(network, name)]
            if adapted:
                parameters = [each for update in adapted for each in update.parameters()]
                self.attach(module.register_forward_pre_hook(partial(self._begin, parameters)))
        for name, layer in self.layers.items():
            update = partial(self._add, self.updates[key_of(name)])
            self.attach(layer.register_forward_hook(update))
        return self

    def _begin(self, parameters: list[nn.Parameter], *_: object) -> None:
        if isinstance(self.strength, Tensor) or self.strength != 0:
            self.casts.begin(parameters, self.base.dtype)

    def eject(self) -> None:
        """Detach, and keep no casts."""
        super().eject()
        self.casts.forget()

    def discard_pass(self) -> None:
        """Let the casts of a pass go."""
        self.casts.forget()

    def _add(
        self, update: nn.Module, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor
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


def _is_in(network: str, layer: str) -> bool:
    return layer.startswith(f"{network}.")


def chosen_sets(base: Family, targets: str) -> list[str]:
    """Return the target sets of `base` that the setting `targets` means.

    Raises:
        UsageError: the base has no such set.
    """
    sets = base.targets.sets
    if targets == "all":
        return [name for name in ALL if name in sets]
    names = targets.split("+")
    for name in names:
        if name not in sets:
            raise UsageError(
                f"lora.targets names '{name}'; bases of the kind {base.name} have "
                f"{', '.join(sets)}; join several by +, or write all.{nearest(name, sets)}"
            )
    return names


def widest_rank(layer: nn.Linear | nn.Conv2d) -> int:
    """Return the largest rank an update of `layer` can have: its fewer inputs or outputs."""
    return min(len(layer.weight), layer.weight.numel() // len(layer.weight))


def named_layers(base: Family, names: list[str]) -> dict[str, Layer]:
    """Return {name: layer} for exact names such as `denoiser.mid_block.attentions.0.proj_in`.

    Raises:
        UsageError: a name is no Linear or Conv2d layer of the base.
    """
    there = base.layers()
    for name in names:
        if name not in there:
            raise UsageError(
                f"lora.layers names '{name}', which is no linear or convolution layer of base "
                f"'{base.source}'.{nearest(name, there)}"
            )
    if not names:
        raise UsageError("lora.layers is empty; name at least one layer, or leave it out")
    return {name: there[name] for name in names}
