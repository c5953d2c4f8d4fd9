"""Pieces of work side by side, each computed by threads of its own.

Threads that share an operation wait for each other at its end. Where operations are small, or other
work takes one of the cores for a while, that is much of the time; pieces which need nothing of each
other need not wait, and what one computes stays in the cache of its core.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier
from typing import Any

import torch

from personae.models.acceleration.wide_products import carried


def in_parallel(
    compute: Callable[..., None], pieces: Iterable[tuple[Any, ...]], at_once: int
) -> None:
    """Call `compute` once for each of `pieces`, without gradients, in no fixed order.

    Args:
        compute: takes the parts of a piece; two calls at once must not write to the same tensor.
        pieces: what it is called with.
        at_once: how many calls at once, at most one for each of torch's threads.
    """

    widening = carried()

    @torch.no_grad()
    def call(piece: tuple[Any, ...]) -> None:
        with widening():
            compute(*piece)

    workers = min(at_once, torch.get_num_threads())
    if workers < 2:
        with torch.no_grad():
            for piece in pieces:
                compute(*piece)
        return
    for _ in _pool(os.getpid(), workers, torch.get_num_threads()).map(call, pieces):
        pass


@cache
def _pool(process: int, workers: int, threads: int) -> ThreadPoolExecutor:
    """Return threads of Python that compute with an equal share of torch's `threads` each.

    `process` is the process they belong to: a fork has none of them.
    """
    ready = Barrier(workers)

    def begin(_: int) -> None:
        torch.get_num_threads()  # a thread's first question gives it the number of all others
        torch.set_num_threads(threads // workers)
        ready.wait()

    pool = ThreadPoolExecutor(workers, thread_name_prefix="side-by-side")
    for _ in pool.map(begin, range(workers)):
        pass
    torch.set_num_threads(threads)  # what is set last holds for threads to come
    return pool
