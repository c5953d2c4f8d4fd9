"""Attention whose table of weights is computed again in the backward pass, piece by piece."""

from __future__ import annotations

from queue import SimpleQueue
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from personae.models.acceleration.packs import needs_gradient
from personae.models.acceleration.threads import in_parallel

# Numbers of a table of weights that are computed at once, of several heads or of some rows of one:
# with 4096 tokens, pieces of 512 rows take 0.8 of the time of torch's fused backward pass, pieces
# of 256 rows 0.95, of 1024 rows again 0.8 (bf16, two cores).
PIECE = 2**21
# Numbers of all tables together from which heads are computed side by side, a thread each: 0.85 of
# the time for 8 heads of 1024 or 4096 tokens on two cores, 0.73 where other work takes one of them;
# 1.1 for 256 tokens.
WORTH_THREADS = 2**21


def attend(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Return softmax(s q k^T) v of tensors (b, heads, l, d), the weights not kept."""
    if any(map(needs_gradient, (query, key, value))):
        mixed: Tensor = _Recomputed.apply(query, key, value, scale)
        return mixed
    return functional.scaled_dot_product_attention(query, key, value, scale=scale)


class _Recomputed(torch.autograd.Function):
    """Fused attention, and the gradients of query, key and value."""

    @staticmethod
    def forward(context: Any, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        context.save_for_backward(query, key, value)
        context.scale = scale
        return functional.scaled_dot_product_attention(query, key, value, scale=scale)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        shape = gradient.shape[:2]
        # Read once: checkpointing lets go of what was read.
        query, key, value, gradient = (
            each.contiguous().flatten(0, 1) for each in (*context.saved_tensors, gradient)
        )
        query = query * context.scale
        found = torch.empty_like(query), *(torch.zeros(each.shape) for each in (key, value))
        _in_pieces(query, key, value, gradient, *found)
        of_query, of_key, of_value = (each.to(query.dtype).unflatten(0, shape) for each in found)
        return of_query * context.scale, of_key, of_value, None


def _in_pieces(query: Tensor, key: Tensor, *others: Tensor) -> None:
    """Let `_add_gradients` do all heads, several at once in rooms of their own."""
    table = query.shape[1] * key.shape[1]
    many = len(query) * table >= WORTH_THREADS
    threads = min(len(query), torch.get_num_threads()) if many else 1
    heads = min(len(query) // threads, PIECE // table)
    given = query, key, *others
    if heads > 1:
        shape: tuple[int, ...] = heads, query.shape[1], key.shape[1]
        parts = zip(*(each.split(heads) for each in given), strict=True)
    else:  # matrices: for batches of one, torch's products of batches take twice as long
        shape = min(query.shape[1], max(1, PIECE // key.shape[1])), key.shape[1]
        parts = zip(*(each.unbind() for each in given), strict=True)
    rooms: SimpleQueue[Tensor] = SimpleQueue()
    for room in query.new_empty(threads, 2, *shape):
        rooms.put(room)

    def add(*part: Tensor) -> None:
        room = rooms.get()
        try:
            query, key, value, gradient, of_query, of_key, of_value = part
            cut = room[:, : len(query)]
            _add_gradients(query, key, value, gradient, of_query, of_key, of_value, cut)
        finally:  # whoever waits for a room would wait for ever
            rooms.put(room)

    in_parallel(add, parts, threads)


def _add_gradients(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    gradient: Tensor,
    of_query: Tensor,
    of_key: Tensor,
    of_value: Tensor,
    room: Tensor,
) -> None:
    """Write the gradient of scaled queries q (..., l, d), add those of keys k and values v.

    With p = softmax(q k^T) and the gradient g of p v: dv = p^T g, dp = g v^T,
    ds = p (dp - sum(p dp)), dq = ds k, dk = ds^T q; dv and dk are summed in float32.
    """
    keys, values, rows = key.mT, value.mT, room.shape[-2]
    for q, g, dq in zip(*(e.split(rows, -2) for e in (query, gradient, of_query)), strict=True):
        scores, weights = room[..., : q.shape[-2], :]
        torch.matmul(q, keys, out=scores)
        torch.softmax(scores, -1, out=weights)
        of_value += weights.mT @ g
        torch.matmul(g, values, out=scores)
        torch.ops.aten._softmax_backward_data.out(scores, weights, -1, q.dtype, grad_input=scores)
        torch.matmul(scores, key, out=dq)
        of_key += scores.mT @ q
