"""Attention by plain matrix products, whose backward pass is quick on processors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from personae.acceleration.attending import QuickAttention
from personae.acceleration.base import needs_gradient
from personae.devices import HOST
from personae.families.base import Family

# Numbers in one layer's table of weights beyond which it is too large to keep for the backward
# pass: 2^25 in bf16 are 64 MiB, as of one picture of 2048 tokens with 8 heads.
LARGEST_TABLE = 2**25
# Numbers of a larger table that are computed at once: with 4096 tokens, pieces of 512 rows took
# 0.7 of the time of torch's fused backward pass, pieces of 256 rows 0.85 (bf16, two cores).
PIECE = 2**21


class MatmulAttention(QuickAttention):
    """Two batched products with the softmax between them kept for the backward pass.

    Torch's fused attention computes the softmax again in its backward pass, and on processors
    does so far below their speed in matrix products. Where the table is too large to keep, it is
    computed again here too, by matrix products and piece by piece.
    """

    name = "matmul_attention"
    title = "attention by matrix products"
    source = "https://arxiv.org/abs/1706.03762, equation 1"
    tolerance = 1e-5

    @classmethod
    def fits(cls, base: Family) -> bool:
        """Serve on the processor; accelerators have fused kernels for both passes."""
        return base.device.type == HOST.type and super().fits(base)

    def mix(self, attention: nn.Module, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Multiply, take the softmax, multiply."""
        scale = attention.scale
        if query.shape[:3].numel() * key.shape[2] > LARGEST_TABLE:
            if any(map(needs_gradient, (query, key, value))):
                return _Recomputed.apply(query, key, value, scale)
            return functional.scaled_dot_product_attention(query, key, value, scale=scale)
        query, key, value = (each.flatten(0, 1) for each in (query, key, value))
        scores = torch.baddbmm(
            query.new_empty(1, 1, 1), query, key.transpose(1, 2), beta=0, alpha=scale
        )
        return (scores.softmax(-1) @ value).unflatten(0, (-1, attention.heads))


class _Recomputed(torch.autograd.Function):
    """Fused attention forward; backward, the table anew in pieces of one head."""

    @staticmethod
    def forward(context: Any, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        context.save_for_backward(query, key, value)
        context.scale = scale
        return functional.scaled_dot_product_attention(query, key, value, scale=scale)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of softmax(s q k^T) v, head by head."""
        given = [each.flatten(0, 1) for each in (*context.saved_tensors, gradient)]
        heads = [_backward_of_head(*head, context.scale) for head in zip(*given, strict=True)]
        shape = gradient.shape[:2]
        return *(torch.stack(each).unflatten(0, shape) for each in zip(*heads, strict=True)), None


def _backward_of_head(
    query: Tensor, key: Tensor, value: Tensor, gradient: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of one head's query (l, d), key and value (m, d).

    With p = softmax(s q k^T) and the gradient g of p v: dv = p^T g, dp = g v^T,
    ds = p (dp - sum(p dp)), dq = s ds k, dk = s ds^T q.
    """
    query = query * scale
    rows = max(1, PIECE // len(key))
    keys_turned, values_turned = key.t(), value.t()
    of_query = torch.empty_like(query)
    of_key, of_value = (torch.zeros(each.shape) for each in (key, value))  # sums in float32
    room = query.new_empty(2, min(rows, len(query)), len(key))
    for q, g, dq in zip(*(each.split(rows) for each in (query, gradient, of_query)), strict=True):
        scores, weights = room[:, : len(q)]
        torch.mm(q, keys_turned, out=scores)
        torch.softmax(scores, -1, out=weights)
        of_value += weights.t() @ g
        torch.mm(g, values_turned, out=scores)
        torch.ops.aten._softmax_backward_data.out(scores, weights, -1, q.dtype, grad_input=scores)
        torch.mm(scores, key, out=dq)
        of_key += scores.t() @ q
    return of_query * scale, of_key.to(key.dtype), of_value.to(value.dtype)
