"""Attention whose weights are computed again in the backward pass, by matrix products."""

from __future__ import annotations

from diffusers.models.attention_processor import Attention
from torch import Tensor

from personae.core.devices import HOST
from personae.models.acceleration import recomputed
from personae.models.acceleration.attention import QuickAttention
from personae.models.family import Family


class RecomputedAttention(QuickAttention):
    """Torch's fused attention forward; backward, the table anew and piece by piece.

    It keeps no more than torch's attention does, whose own backward pass is far below the speed
    of a processor in matrix products.
    """

    name = "recomputed_attention"
    title = "attention recomputed by matrix products"
    source = "https://arxiv.org/abs/2112.05682: attention in pieces, recomputed backward"
    tolerance = 1e-5
    frugal = True

    @classmethod
    def fits(cls, base: Family) -> bool:
        """Serve on the processor; accelerators have fused kernels for both passes."""
        return base.device.type == HOST.type and super().fits(base)

    def mix(self, attention: Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Return softmax(s q k^T) v."""
        return recomputed.attend(query, key, value, attention.scale)
