"""What accelerations of attention share: which layers they understand, and all but the mixing."""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from typing import Any

from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor, nn

from personae.models.acceleration.acceleration import Acceleration
from personae.models.family import Family
from personae.models.forwards import Forward


class QuickAttention(Acceleration):
    """Attention without what diffusers does around it at every call; subclasses mix the values."""

    part = "attention"

    @classmethod
    def fits(cls, base: Family) -> bool:
        """Serve everywhere."""
        return bool(cls.modules(base))

    @classmethod
    def modules(cls, base: Family) -> dict[str, nn.Module]:
        """Return the denoiser's attentions that are softmax(q k / sqrt(d)) v and a projection."""
        return {
            name: module
            for name, module in base.denoiser.named_modules()
            if isinstance(module, Attention)
            and type(module.processor) is AttnProcessor2_0
            and not module.residual_connection
            and module.rescale_output_factor == 1
            and not any(
                getattr(module, part, None)
                for part in ("spatial_norm", "group_norm", "norm_cross", "norm_q", "norm_k")
            )
        }

    def forward_for(self, module: nn.Module, plain: Forward) -> Forward:
        """Return the forward of one attention."""
        return partial(self._forward, module, module.processor, plain)

    @abstractmethod
    def mix(self, attention: Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Return softmax(q k / sqrt(d)) v, (b, heads, l, d), of three of that form."""

    def _forward(
        self,
        attention: Attention,
        processor: Any,
        plain: Forward,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **named: Any,
    ) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        usual = (
            attention.processor is processor  # the one the layer had before
            and hidden_states.dim() == 3
            and attention_mask is None
            and not any(value is not None for value in named.values())
        )
        if not usual:
            return plain(hidden_states, encoder_hidden_states, attention_mask, **named)
        query = _heads_of(attention.to_q(hidden_states), attention.heads)
        key = _heads_of(attention.to_k(context), attention.heads)
        value = _heads_of(attention.to_v(context), attention.heads)
        mixed = self.mix(attention, query, key, value).transpose(1, 2).flatten(2)
        output: Tensor = attention.to_out[1](attention.to_out[0](mixed))
        return output


def _heads_of(tokens: Tensor, heads: int) -> Tensor:
    """Return (b, heads, l, d) of tokens (b, l, heads x d)."""
    apart: Tensor = tokens.unflatten(2, (heads, -1)).transpose(1, 2)
    return apart
