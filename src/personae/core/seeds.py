"""Random numbers that depend on a seed and a named stream alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from personae.core.devices import HOST


def generator_for(seed: int, *stream: int | str) -> torch.Generator:
    """Return a generator on the host that depends on `seed` and the named stream alone.

    Deriving every draw from (seed, stream) instead of one running state makes a resumed run equal
    to an uninterrupted one, and gives every technique the same noise.
    """
    digest = hashlib.sha256(repr((seed, *stream)).encode()).digest()
    return torch.Generator(HOST).manual_seed(int.from_bytes(digest[:8], "big") >> 1)


@contextmanager
def seeded(device: torch.device, seed: int, *stream: int | str) -> Iterator[None]:
    """Make draws inside the block that take no generator (dropout) depend on (seed, stream) alone.

    The state outside the block is left as it was.
    """
    accelerators = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(accelerators):
        torch.manual_seed(generator_for(seed, *stream).initial_seed())
        yield
