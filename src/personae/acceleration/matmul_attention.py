"""Attention by plain matrix products, whose backward pass is quick on processors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from personae.acceleration.attending import QuickAttention
from personae.devices import HOST
from personae.families.base import Family

# Numbers in one layer's table of weights beyond which it is too large to keep for the backward
# pass: 2^25 in bf16 are 64 MiB, as of one picture of 2048 tokens with 8 heads.
LARGEST_TABLE = 2**25


class MatmulAttention(QuickAttention):
    """Two batched products with the softmax between them kept for the backward pass.

    Torch's fused attention computes the softmax again in its backward pass, and on processors
    does so far below their speed in matrix products.
    """

    name = "matmul_attention"
    title = "attention by matrix products"
    source = "https://arxiv.org/abs/1706.03762, equation 1"
    tolerance = 1e-5

    @classmethod
    def fits(cls, base: Family) -> bool:
        """Serve on the processor; accelerators have fused kernels for both passes."""
        return base.device.type == HOST.type and super().fits(base)

    def takes(self, table: int) -> bool:
        """Serve where the table is small enough to keep."""
        return table <= LARGEST_TABLE

    def mix(self, attention: nn.Module, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Multiply, take the softmax, multiply."""
        query, key, value = (each.flatten(0, 1) for each in (query, key, value))
        scores = torch.baddbmm(
            query.new_empty(1, 1, 1), query, key.transpose(1, 2), beta=0, alpha=attention.scale
        )
        return (scores.softmax(-1) @ value).unflatten(0, (-1, attention.heads))
