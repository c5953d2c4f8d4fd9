"""Attention by plain matrix products, whose backward pass is quick on processors."""

from __future__ import annotations

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor

from personae.core.devices import HOST
from personae.models.acceleration import recomputed
from personae.models.acceleration.attention import QuickAttention
from personae.models.family import Family

# Numbers in one layer's table of weights beyond which it is not kept for the backward pass. Both
# passes together, bf16, two cores: kept takes 0.6 of the time of a table computed again with 2.5
# million numbers (4096 places that see 77), 1.2 with 8.4 million (1024 that see 1024, 8 heads),
# 1.7 with 33 million.
LARGEST_TABLE = 2**22


class MatmulAttention(QuickAttention):
    """Two batched products with the softmax between them kept for the backward pass.

    Torch's fused attention computes the softmax again in its backward pass, and on processors
    does so far below their speed in matrix products. Where the table is so large that keeping it
    does not pay, it is computed again here too, by matrix products and piece by piece.
    """

    name = "matmul_attention"
    title = "attention by matrix products"
    source = "https://arxiv.org/abs/1706.03762, equation 1"
    tolerance = 1e-5

    @classmethod
    def fits(cls, base: Family) -> bool:
        """Serve on the processor; accelerators have fused kernels for both passes."""
        return base.device.type == HOST.type and super().fits(base)

    def mix(self, attention: Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Multiply, take the softmax, multiply."""
        scale = attention.scale
        if query.shape[:3].numel() * key.shape[2] > LARGEST_TABLE:
            return recomputed.attend(query, key, value, scale)
        query, key, value = (each.flatten(0, 1) for each in (query, key, value))
        scores = torch.baddbmm(
            query.new_empty(1, 1, 1), query, key.transpose(1, 2), beta=0, alpha=scale
        )
        mixed: Tensor = (scores.softmax(-1) @ value).unflatten(0, (-1, attention.heads))
        return mixed
