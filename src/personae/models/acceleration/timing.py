"""Times the modules of a base as they are and as accelerations compute them."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from torch import Tensor, nn

from personae.core.devices import synchronize
from personae.models.acceleration.acceleration import Acceleration
from personae.models.family import Family
from personae.models.forwards import Forward

PLAIN = "plain"
ROUNDS = 2
# The share of the plain time an acceleration may take at most: below the noise of the probe it
# would be chosen by chance, and a choice by chance is not worth its memory.
WORTHWHILE = 0.95
WORTH_COPIES = 0.8  # the same where weights are held twice, gigabytes on a large base; and the
# share of the time of what holds them once
# Seconds for all shapes of one part; the heaviest come first.
PATIENCE = 0.75

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a module: its inputs, and how many modules are called alike in one pass."""

    module: nn.Module
    args: tuple[Any, ...]
    named: dict[str, Any]
    seconds: float
    count: int


def quickest(
    base: Family,
    parts: Mapping[str, Sequence[type[Acceleration]]],
    rows: int,
    size: tuple[int, int],
    *,
    training: bool,
) -> list[str]:
    """Return the accelerations that are worth it here and now, at most one of each part.

    Args:
        base: with nothing accelerated.
        parts: candidates of each part.
        rows: batch size.
        size: width and height in pixels.
        training: also time the gradient of the inputs.
    """
    chosen = []
    concerned = {
        part: {module for each in candidates for module in each.modules(base).values()}
        for part, candidates in parts.items()
    }
    calls = _calls(base, set().union(*concerned.values()), rows, size)
    calls.sort(key=lambda call: -call.seconds * call.count)  # the heaviest first
    for part, candidates in parts.items():
        mine = [call for call in calls if call.module in concerned[part]]
        shares = _shares(candidates, mine, training)
        best, share = None, 1.0
        for copies, worth in ((False, WORTHWHILE), (True, WORTH_COPIES)):
            alike = [each for each in candidates if each.copies == copies]
            first = min(alike, key=lambda each: shares[each.name], default=None)
            if first and shares[first.name] <= worth * share:
                best, share = first, shares[first.name]
        chosen += [best.name] if best else []
        logger.info("share of the plain time, training=%s: %s", training, shares)
    return chosen


@torch.no_grad()
def _calls(base: Family, modules: set[nn.Module], rows: int, size: tuple[int, int]) -> list[Call]:
    """Return the calls of one pass, calls of equal shapes as one."""
    found: dict[Any, Call] = {}
    shape = base.latent_shape(*size)
    with _watching(modules, found):
        text = base.encode_text([""])[[0] * rows]
        latents = torch.zeros(rows, *shape, device=base.device)
        base.denoise(latents, base.path.spread(rows, shape), text)
    return list(found.values())


@contextmanager
def _watching(modules: set[nn.Module], found: dict[Any, Call]) -> Iterator[None]:
    started: list[float] = []

    def before(module: nn.Module, args: Any, named: Any) -> None:
        started.append(time.perf_counter())

    def after(module: nn.Module, args: Any, named: Any, output: Any) -> None:
        seconds = time.perf_counter() - started.pop()
        given = [*args, *named.values()]
        shapes = tuple(tuple(each.shape) for each in given if isinstance(each, Tensor))
        weights = tuple(tuple(each.shape) for each in module.parameters())
        key = (type(module), str(module), weights, shapes)
        count = found[key].count + 1 if key in found else 1
        found[key] = Call(module, args, named, seconds, count)

    handles = [
        handle
        for module in modules
        for handle in (
            module.register_forward_pre_hook(before, with_kwargs=True),
            module.register_forward_hook(after, with_kwargs=True),
        )
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _shares(
    candidates: Sequence[type[Acceleration]], calls: Sequence[Call], training: bool
) -> dict[str, float]:
    """Return the time of each candidate over that of the plain way, infinite where it fails."""
    began = time.perf_counter()
    taken = dict.fromkeys([PLAIN, *(each.name for each in candidates)], 0.0)
    for call in calls:
        plain = call.module.forward
        serving = [each for each in candidates if taken[each.name] < inf]
        ways = {each.name: each().forward_for(call.module, plain) for each in serving}
        for name, seconds in _least({PLAIN: plain, **ways}, call, training).items():
            taken[name] += call.count * seconds
        if time.perf_counter() - began > PATIENCE:
            break
    plain_seconds = taken.pop(PLAIN)
    return {
        name: seconds / plain_seconds if 0 < plain_seconds < inf else inf
        for name, seconds in taken.items()
    }


def _least(ways: Mapping[str, Forward], call: Call, training: bool) -> dict[str, float]:
    """Return the least seconds of each way, taken in turns after one call to warm up."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS + 1):
        for name, forward in ways.items():
            if inf in times[name]:
                continue
            try:
                times[name].append(_once(forward, call, training))
            except RuntimeError as error:  # operators of other versions and processors may refuse
                logger.info("%s cannot serve: %s", name, error)
                times[name].append(inf)
    return {name: inf if inf in taken else min(taken[1:]) for name, taken in times.items()}


def _once(forward: Forward, call: Call, training: bool) -> float:
    device = call.args[0].device
    synchronize(device)
    with torch.set_grad_enabled(training):
        first = call.args[0].detach().requires_grad_(training)
        started = time.perf_counter()
        output = forward(first, *call.args[1:], **call.named)
        if training:
            torch.autograd.grad(output.sum(), first)
        synchronize(device)
        return time.perf_counter() - started
