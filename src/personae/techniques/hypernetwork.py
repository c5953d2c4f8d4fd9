"""Hypernetworks of the A1111 / NovelAI kind: small networks before the keys and values.

For each context width d there is one pair (H_k, H_v), shared by every attention layer that reads a
context of that width: k = W_k (c + m H_k(c)), v = W_v (c + m H_v(c)), m = strength.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, Self, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from personae.errors import UnsupportedError
from personae.models.family import Family
from personae.models.layers import layers_matching
from personae.models.recommended import Recommended
from personae.techniques.activations import ACTIVATIONS, at_zero
from personae.techniques.casts import Casts
from personae.techniques.settings.hypernetwork import HypernetworkConfig
from personae.techniques.technique import Technique, allocated_on

SizedLayer = TypeVar("SizedLayer", bound=nn.Module)


def build_network(width: int, config: HypernetworkConfig) -> nn.Sequential:
    """Return the layers for contexts of `width`: Linear, activation, norm, dropout, as in A1111.

    Raises:
        UnsupportedError: dropout_structure has another length than layer_structure, or a layer
            would have no channel.
    """
    structure = config.layer_structure
    dropout = config.dropout_structure or [0.0] * len(structure)
    if len(dropout) != len(structure):
        raise UnsupportedError(
            f"hypernetwork.dropout_structure has {len(dropout)} numbers; layer_structure has "
            f"{len(structure)}; give one for each"
        )
    if int(width * min(structure)) < 1:
        raise UnsupportedError(
            f"hypernetwork.layer_structure holds {min(structure):g}, which leaves no channel of a "
            f"context of width {width}; use at least {1 / width:.2g}"
        )
    layers: list[nn.Module] = []
    for i in range(len(structure) - 1):
        inputs, outputs = int(width * structure[i]), int(width * structure[i + 1])
        layers.append(nn.Linear(inputs, outputs))
        activation = ACTIVATIONS[config.activation]
        if activation and (i < len(structure) - 2 or config.activate_output):
            layers.append(activation())
        if config.layer_norm:
            layers.append(nn.LayerNorm(outputs))
        if dropout[i + 1] > 0:
            layers.append(nn.Dropout(dropout[i + 1]))
    return nn.Sequential(*layers)


@torch.no_grad()
def initialise(network: nn.Sequential, how: str, generator: torch.Generator) -> None:
    """Fill the weights; biases are zero.

    "normal" is N(0, 0.01) on Linear and LayerNorm weights alike, as A1111 does. "zero_last" is
    Kaiming-uniform, then a zero last layer, so that training starts exactly at the base.
    """
    linear = [layer for layer in network if isinstance(layer, nn.Linear)]
    norms = [layer for layer in network if isinstance(layer, nn.LayerNorm)]
    own: dict[str, Callable[..., Any]]
    own = {"zero_last": nn.init.kaiming_uniform_, "normal": partial(nn.init.normal_, std=0.01)}
    fill = own.get(how) or getattr(nn.init, f"{how}_")
    for layer in linear:
        fill(layer.weight, generator=generator)
        layer.bias.zero_()
    for norm in norms if how == "normal" else ():
        nn.init.normal_(norm.weight, std=0.01, generator=generator)
    if how == "zero_last":
        linear[-1].weight.zero_()
        if norms:  # a norm after the last layer would turn zeros into its own bias, which is 0
            norms[-1].weight.fill_(1.0)


def _new_network(
    width: int, config: HypernetworkConfig, base: Family, generator: torch.Generator | None
) -> nn.Sequential:
    if generator is None:
        with allocated_on(base, generator):
            return build_network(width, config)
    network = build_network(width, config)
    initialise(network, config.initialisation, generator)
    for module in network.modules():  # replaced, as fake and empty tensors need it
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(parameter.data.to(base.device)))
    return network


class Hypernetwork(Technique):
    """One pair of networks per context width."""

    name = "hypernetwork"
    holder = "networks"
    title = HypernetworkConfig.title
    source = "https://blog.novelai.net/novelai-improvements-on-stable-diffusion-e10d38db82ac"
    Config = HypernetworkConfig
    config: HypernetworkConfig
    recommended = Recommended(
        learning_rate=1e-4,
        weight_decay=1e-2,
        steps_per_picture=200,
        min_steps=1500,
        max_steps=4000,
    )

    def __init__(
        self, config: HypernetworkConfig, base: Family, generator: torch.Generator | None
    ) -> None:
        super().__init__(config, base, generator)
        self.layers = self._find_layers(base)
        self.networks = nn.ModuleDict()
        for width in sorted({layer.in_features for _, layer in self.layers}):
            for part in ("k", "v"):
                self.networks[f"{width}/{part}"] = _new_network(width, config, base, generator)
        self._ratios: dict[str, Tensor] = {}
        self._casts = Casts()
        # Of the denoiser's pass that is going on, else None: {network: context, changed context}.
        self._changed: dict[str, tuple[Tensor, Tensor]] | None = None

    def _find_layers(self, base: Family) -> list[tuple[str, nn.Linear]]:
        targets = base.targets
        if targets.text_keys is None or targets.text_values is None:
            raise UnsupportedError(
                f"a hypernetwork needs layers that read the text alone, and {base.name} has none; "
                "use lora, dreambooth or textual_inversion"
            )
        patterns = [("k", targets.text_keys), ("v", targets.text_values)]
        if self.config.self_attention and targets.self_keys and targets.self_values:
            patterns += [("k", targets.self_keys), ("v", targets.self_values)]
        return [
            (part, layer)
            for part, pattern in patterns
            for layer in layers_matching(base.denoiser, pattern).values()
            if isinstance(layer, nn.Linear)
        ]

    def _network(self, name: str) -> nn.Sequential:
        return cast(nn.Sequential, self.networks[name])

    def _sized(self, name: str, *kinds: type[SizedLayer]) -> list[SizedLayer]:
        return [layer for layer in self._network(name) if isinstance(layer, kinds)]

    def parameter_groups(self, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
        """Say what is trained.

        Raises:
            UnsupportedError: last layers of zeros, behind an activation that keeps them from ever
                learning or from starting at the base.
        """
        last = [self._sized(name, nn.Linear)[-1] for name in self.networks]
        if self.config.activate_output and not any(layer.weight.any() for layer in last):
            value, slope = at_zero(self.config.activation)
            if value or not slope:
                outcome = "never learn" if not value else f"start {value:.2g} off the base"
                raise UnsupportedError(
                    f"hypernetwork.activate_output with '{self.config.activation}' makes last "
                    f"layers of zeros {outcome}; leave it out, or set another initialisation"
                )
        return super().parameter_groups(learning_rate, weight_decay)

    def inject(self) -> Self:
        """Hook the inputs of each key and value layer, and where the denoiser begins and ends."""
        self.attach(self.base.denoiser.register_forward_pre_hook(self._begin))
        end = self.base.denoiser.register_forward_hook(self._end, always_call=True)
        self.attach(end)
        for part, layer in self.layers:
            name = f"{layer.in_features}/{part}"
            self.attach(layer.register_forward_pre_hook(partial(self._add, name)))
        return self

    def _begin(self, denoiser: nn.Module, _: object) -> None:
        # A checkpointed block is computed a second time, alone: it must find what it found before.
        alone = torch.is_grad_enabled() and getattr(denoiser, "is_gradient_checkpointing", False)
        drawn = self.training and any(self.config.dropout_structure or ())
        self._changed = None if alone or drawn else {}
        if isinstance(self.strength, Tensor) or self.strength != 0:
            linear = (layer for name in self.networks for layer in self._sized(name, nn.Linear))
            weights = [each for layer in linear for each in layer.parameters()]
            self._casts.begin(weights, self.base.dtype)

    def _end(self, *_: object) -> None:
        self._changed = None

    def _add(self, name: str, _: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Change the context; all layers that read the text read one tensor, changed once."""
        context, *others = inputs
        kept = self._changed.get(name) if self._changed is not None else None
        if kept is not None and kept[0] is context:
            return (kept[1], *others)
        changed = self.add_scaled(context, context, partial(self._change, name))
        if self._changed is not None:
            self._changed[name] = context, changed
        return (changed, *others)

    def _change(self, name: str, context: Tensor) -> Tensor:
        low_precision = context.dtype != torch.float32
        change = context
        with torch.autocast(context.device.type, context.dtype) if low_precision else nullcontext():
            for layer in self._network(name):
                if isinstance(layer, nn.Linear):
                    # Made anew by each layer that reads a network, with a float32 gradient for
                    # each, a step took 1.13 times as long.
                    parameters = layer.parameters()
                    weight, bias = (self._casts.of(each, context.dtype) for each in parameters)
                    change = functional.linear(change, weight, bias)
                else:
                    change = layer(change)
        if self.training and torch.is_grad_enabled():
            ratio = change.detach().float().norm() / context.detach().float().norm()
            ratio = ratio.nan_to_num(posinf=0.0)  # of zeros, as the empty prompt is on some bases
            self._ratios[name] = torch.maximum(ratio, self._ratios.get(name, ratio))
        return change

    @torch.no_grad()
    def after_step(self) -> None:
        """Scale the last layer down where the change outgrew `max_ratio` times its context.

        Where a norm follows the last Linear layer it is the norm that is scaled, as it would undo
        any other scale.
        """
        for name, ratio in self._ratios.items():
            factor = (self.config.max_ratio / ratio).clamp(max=1.0)  # not read: that would wait
            for parameter in self._sized(name, nn.Linear, nn.LayerNorm)[-1].parameters():
                parameter.mul_(factor)
        self._ratios.clear()

    def discard_pass(self) -> None:
        """Forget the sizes seen and the casts made."""
        self._ratios.clear()
        self._casts.forget()

    def eject(self) -> None:
        """Detach, and keep no casts."""
        super().eject()
        self._casts.forget()
