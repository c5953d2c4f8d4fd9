"""Attention by plain matrix products, whose backward pass is quick on processors."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from personae.acceleration.attending import heads_of, plain_attentions, serves
from personae.acceleration.base import Acceleration
from personae.devices import HOST
from personae.families.base import Family
from personae.forwards import Forward

# Numbers in one layer's table of weights beyond which it is too large to keep for the backward
# pass: 2^25 in bf16 are 64 MiB, as of one picture of 2048 tokens with 8 heads.
LARGEST_TABLE = 2**25


class MatmulAttention(Acceleration):
    """Two batched products with the softmax between them kept for the backward pass.

    Torch's fused attention computes the softmax again in its backward pass, and on processors
    does so far below their speed in matrix products.
    """

    name = "matmul_attention"
    title = "attention by matrix products"
    source = "https://arxiv.org/abs/1706.03762, equation 1"
    part = "attention"
    tolerance = 1e-5

    @classmethod
    def fits(cls, base: Family) -> bool:
        """Serve on the processor; accelerators have fused kernels for both passes."""
        return base.device.type == HOST.type and bool(cls.modules(base))

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
    context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
    table = len(hidden_states) * attention.heads * hidden_states.shape[1] * context.shape[1]
    usual = serves(attention, processor, hidden_states, attention_mask, named)
    if not usual or table > LARGEST_TABLE:
        return plain(hidden_states, encoder_hidden_states, attention_mask, **named)
    query = heads_of(attention.to_q(hidden_states), attention.heads).flatten(0, 1)  # (b x h, l, d)
    key = heads_of(attention.to_k(context), attention.heads).flatten(0, 1)
    value = heads_of(attention.to_v(context), attention.heads).flatten(0, 1)
    scores = torch.baddbmm(
        query.new_empty(1, 1, 1), query, key.transpose(1, 2), beta=0, alpha=attention.scale
    )
    mixed = scores.softmax(-1) @ value
    mixed = mixed.unflatten(0, (-1, attention.heads)).transpose(1, 2).flatten(2)
    return attention.to_out[1](attention.to_out[0](mixed))
