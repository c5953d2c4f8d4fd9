"""Torch's fused attention, called without what diffusers does around it at every call."""

from __future__ import annotations

from diffusers.models.attention_processor import Attention
from torch import Tensor
from torch.nn import functional

from personae.models.acceleration.attention import QuickAttention


class DirectAttention(QuickAttention):
    """The same operators in the same order.

    Diffusers inspects the signature of its attention processor at each call, which takes as long
    as attention itself on small maps.
    """

    name = "direct_attention"
    title = "attention without inspection"
    source = "diffusers.models.attention_processor.Attention.forward"
    exact = True
    frugal = True

    def mix(self, attention: Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Call the fused operator."""
        return functional.scaled_dot_product_attention(query, key, value)
