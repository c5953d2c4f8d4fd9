"""DreamBooth: every weight of the denoiser is fine-tuned, stored as a delta on the base.

Source: Ruiz et al. 2022, arXiv:2208.12242. Its prior preservation (equation 2) is not here: it is
rows of the batch, so that every technique can use it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn

from personae.core.devices import HOST
from personae.core.memory import zeros_on_host
from personae.errors import UnsupportedError
from personae.models.family import Family
from personae.models.recommended import Recommended
from personae.techniques.settings.dreambooth import DreamBoothConfig
from personae.techniques.technique import Leaner, Technique, allocated_on, key_of


class DreamBooth(Technique):
    """A delta on every weight.

    The base's weights are never written: the network computes with `weight + delta`, so that
    updates far below the resolution of bf16 weights still add up. The delta is float32, or bf16
    with a way of rounding that loses nothing on average (`weight_precision`). With `offload` the
    deltas lie in the host's memory, and so does all that an optimiser makes of them.
    """

    name = "dreambooth"
    holder = "deltas"
    title = DreamBoothConfig.title
    source = "https://arxiv.org/abs/2208.12242"
    Config = DreamBoothConfig
    config: DreamBoothConfig
    per_row = False
    changes_weights = True
    # Deltas are far smaller than weights and need range rather than bits: where float16 has only
    # multiples of 6e-8 left, bfloat16 still has 8 bits. And the sum with bf16 weights is quicker.
    stored_dtype = torch.bfloat16
    leaner = (
        Leaner(
            "offload",
            True,
            "what is trained and the optimiser's states lie in the host's memory",
            to_host=True,
        ),
        Leaner(
            "weight_precision",
            "bf16_stochastic",
            "what is trained is bf16 with stochastic rounding",
        ),
    )
    recommended = Recommended(
        learning_rate=2e-6,
        weight_decay=0.0,
        steps_per_picture=100,
        min_steps=400,
        max_steps=1200,
        prior="prediction",
    )

    def __init__(
        self, config: DreamBoothConfig, base: Family, generator: torch.Generator | None
    ) -> None:
        super().__init__(config, base, generator)
        format_ = torch.float32 if config.weight_precision == "fp32" else torch.bfloat16
        chosen = base.networks if config.text_encoder else {"denoiser": base.denoiser}
        self.tuned = dict(chosen)
        place = allocated_on(base, generator)
        self.deltas = nn.ParameterDict(
            {
                key_of(f"{network}.{name}"): nn.Parameter(
                    zeros_on_host(weight.shape, format_, weight.device)
                    if config.offload and generator
                    else torch.zeros(weight.shape, dtype=format_, device=place)
                )
                for network, module in chosen.items()
                for name, weight in module.named_parameters()
            }
        )
        self._injected = False

    def hold(self, values: Mapping[str, Tensor]) -> None:
        """Take the deltas in the format of the file, in which they take the least memory."""
        place = HOST if self.config.offload else self.base.device
        self._put({name: value.to(place) for name, value in values.items()})

    @property
    def trains_text(self) -> bool:
        """True when the text encoders are tuned too."""
        return self.config.text_encoder

    def parameter_groups(self, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
        """Say how bf16 deltas are rounded."""
        (group,) = super().parameter_groups(learning_rate, weight_decay)
        return [{**group, "rounding": self.config.rounding}]

    @property
    def injected(self) -> bool:
        """Say whether its deltas lie over the weights now."""
        return self._injected

    def inject(self) -> Self:
        """Lay the deltas over the weights."""
        for network, module in self.tuned.items():
            self.base.overlay(module).add(self, partial(self._delta, network), self._state)
        self._injected = True
        return self

    def eject(self) -> None:
        """Take the deltas away."""
        for module in self.tuned.values():
            self.base.overlay(module).remove(self)
        self._injected = False

    def _delta(self, network: str, name: str) -> Tensor | None:
        delta: Tensor = self.deltas[key_of(f"{network}.{name}")]
        return delta if self.strength == 1 else delta.float() * self.strength

    def _state(self) -> tuple[object, ...]:
        if isinstance(self.strength, Tensor):
            raise UnsupportedError(
                "dreambooth changes the weights that all pictures of a batch share; draw its "
                "pictures in a batch of their own"
            )
        if self.strength == 0:
            return ()
        return (id(self), self.strength, *(delta._version for delta in self.deltas.values()))
