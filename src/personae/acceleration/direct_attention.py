"""Torch's fused attention, called without what diffusers does around it at every call."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from personae.acceleration.attending import heads_of, plain_attentions, serves
from personae.acceleration.base import Acceleration
from personae.families.base import Family
from personae.forwards import Forward


class DirectAttention(Acceleration):
    """The same operators in the same order.

    Diffusers inspects the signature of its attention processor at each call, which takes as long
    as attention itself on small maps.
    """

    name = "direct_attention"
    title = "attention without inspection"
    source = "diffusers.models.attention_processor.Attention.forward"
    part = "attention"
    exact = True

    @classmethod
    def fits(cls, base: Family) -> bool:
        """Serve everywhere."""
        return bool(cls.modules(base))

    @classmethod
    def modules(cls, base: Family) -> dict[str, nn.Module]:
        """Return the denoiser's attentions of the usual kind."""
        return plain_attentions(base)

    def forward_for(self, module: nn.Module, plain: Forward) -> Forward:
        """Return the forward of one attention."""
        return partial(_forward, module, module.processor, plain)


def _forward(
    attention: nn.Module,
    processor: Any,
    plain: Forward,
    hidden_states: Tensor,
    encoder_hidden_states: Tensor | None = None,
    attention_mask: Tensor | None = None,
    **named: Any,
) -> Tensor:
    if not serves(attention, processor, hidden_states, attention_mask, named):
        return plain(hidden_states, encoder_hidden_states, attention_mask, **named)
    context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
    query = heads_of(attention.to_q(hidden_states), attention.heads)  # (b, heads, l, d)
    key = heads_of(attention.to_k(context), attention.heads)
    value = heads_of(attention.to_v(context), attention.heads)
    mixed = functional.scaled_dot_product_attention(query, key, value)
    mixed = mixed.transpose(1, 2).flatten(2)
    return attention.to_out[1](attention.to_out[0](mixed))
