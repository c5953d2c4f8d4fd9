"""What accelerations of attention share: which layers they understand, and heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor, nn

from personae.families.base import Family


def plain_attentions(base: Family) -> dict[str, nn.Module]:
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


def serves(
    attention: nn.Module,
    processor: Any,
    hidden_states: Tensor,
    mask: Tensor | None,
    named: Mapping[str, Any],
) -> bool:
    """Say whether a call is one of tokens alone, on the processor the layer had before."""
    return (
        attention.processor is processor
        and hidden_states.dim() == 3
        and mask is None
        and not any(value is not None for value in named.values())
    )


def heads_of(tokens: Tensor, heads: int) -> Tensor:
    """Return (b, heads, l, d) of tokens (b, l, heads x d)."""
    return tokens.unflatten(2, (heads, -1)).transpose(1, 2)
