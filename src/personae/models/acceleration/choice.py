"""Chooses how a base is computed: by a short probe on this machine, kept for the next time."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from inspect import getfile
from pathlib import Path

import torch
from torch import nn

from personae.core.cache import ValueCache, default_folder
from personae.core.devices import describe
from personae.core.registry import discover, nearest
from personae.errors import UsageError
from personae.models.acceleration.acceleration import Acceleration
from personae.models.acceleration.timing import quickest
from personae.models.acceleration.wide_products import widened
from personae.models.family import Family

VARIABLE = "PERSONAE_ACCELERATION"
FRUGAL = ("none", "lean")  # settings that take no memory of their own
MOST_PROBED_ROWS = 4


def setting(wanted: str = "auto") -> str:
    """Return what to use: `wanted`, or where that is auto what $PERSONAE_ACCELERATION says.

    Raises:
        UsageError: it is neither auto, lean, none, nor names of accelerations joined by commas.
    """
    chosen = wanted if wanted != "auto" else os.environ.get(VARIABLE) or "auto"
    known = discover(Acceleration)
    for name in [] if chosen in ("auto", *FRUGAL) else chosen.split(","):
        if name not in known:
            raise UsageError(
                f"acceleration is '{chosen}'; it must be auto, lean, none, or some of "
                f"{', '.join(known)} joined by commas.{nearest(name, [*known, 'auto', *FRUGAL])}"
            )
    return chosen


@contextmanager
def accelerated(
    base: Family, rows: int, size: tuple[int, int] | None = None, *, training: bool = False
) -> Iterator[None]:
    """Let a base compute in the quickest ways its `acceleration` allows, inside a `with` block.

    Args:
        base: one with nothing accelerated computes as diffusers wrote it.
        rows: size of the batches to come.
        size: width and height of the pictures to come in pixels; None = the base's own.
        training: gradients will be asked for; passes without them count as much then.
    """
    modes = (False, True) if training else (False,)
    before = {mode: dict(base.forwards.chosen(mode)) for mode in modes}
    # All is decided before anything is changed: the probe times the plain base.
    wanted = {mode: choose(base, rows, size, training=mode) for mode in modes}
    try:
        for mode in modes:
            base.forwards.choose(mode, _by_module(base, wanted[mode]))
        yield
    finally:
        for mode in modes:
            base.forwards.choose(mode, before[mode])


def choose(
    base: Family, rows: int, size: tuple[int, int] | None = None, *, training: bool
) -> list[str]:
    """Return the names of the accelerations to use.

    Raises:
        UsageError: one asked for by name cannot serve this base on this machine.
    """
    known = discover(Acceleration)
    if base.acceleration == "none":
        return []
    fitting = {
        name: kind
        for name, kind in known.items()
        if kind.fits(base) and not (training and kind.inference_only)
    }
    if base.acceleration == "lean":
        fitting = {name: kind for name, kind in fitting.items() if kind.frugal}
    elif base.acceleration != "auto":
        names = base.acceleration.split(",")
        for name in names:
            if not known[name].fits(base):
                raise UsageError(
                    f"acceleration '{name}' does not work on base '{base.source}' in "
                    f"{base.dtype} on {base.device}; use auto"
                )
        return [name for name in names if name in fitting]
    fitting = {name: kind for name, kind in fitting.items() if kind.promises(base)}
    rows = min(MOST_PROBED_ROWS, 1 << (rows - 1).bit_length())
    parts: dict[str, list[type[Acceleration]]] = {}
    for kind in fitting.values():
        parts.setdefault(kind.part, []).append(kind)
    sure = [name for name, kind in fitting.items() if kind.exact and len(parts[kind.part]) == 1]
    doubtful = {
        part: kinds for part, kinds in parts.items() if not any(k.name in sure for k in kinds)
    }
    size = size or (base.resolution, base.resolution)
    return sorted([*sure, *_measured(base, doubtful, rows, size, training=training)])


def _measured(
    base: Family,
    parts: Mapping[str, Sequence[type[Acceleration]]],
    rows: int,
    size: tuple[int, int],
    *,
    training: bool,
) -> list[str]:
    """Return the choice of the probe, from the cache where this machine has made it before.

    The cache is what makes a recipe draw the same bytes, and a resumed run go on to the same bits.
    What was measured of other code says nothing, so that the code is part of the key.
    """
    about = {
        "torch": torch.__version__,
        "diffusers": version("diffusers"),
        "device": describe(base.device),
        "threads": torch.get_num_threads(),
        "dtype": base.quantised or str(base.dtype),
        "network": _shapes(base.denoiser),
        "size": size,
        "rows": rows,
        "training": training,
        "candidates": sorted(kind.name for kinds in parts.values() for kind in kinds),
        "code": _code(kind for kinds in parts.values() for kind in kinds),
    }
    kept = ValueCache(default_folder() / "acceleration", list[str])
    return kept.get(about, partial(quickest_of_plain, base, parts, rows, size, training=training))


def quickest_of_plain(
    base: Family,
    parts: Mapping[str, Sequence[type[Acceleration]]],
    rows: int,
    size: tuple[int, int],
    *,
    training: bool,
) -> list[str]:
    """Return `timing.quickest` with everything that is in use set aside."""
    before = {mode: dict(base.forwards.chosen(mode)) for mode in (False, True)}
    for mode in before:
        base.forwards.choose(mode, {})
    try:
        with widened(base):
            return quickest(base, parts, rows, size, training=training)
    finally:
        for mode, chosen in before.items():
            base.forwards.choose(mode, chosen)


def _shapes(network: nn.Module) -> str:
    """Return 16 hex digits that say which modules of which shapes a network has."""
    lines = [f"{name} {tuple(weight.shape)}" for name, weight in network.named_parameters()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _code(kinds: Iterable[type[Acceleration]]) -> str:
    """Return 16 hex digits of the Python files beside which the candidates are written."""
    folders = {Path(getfile(kind)).parent for kind in kinds}
    files = sorted(file for folder in folders for file in folder.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def _by_module(base: Family, names: Sequence[str]) -> dict[nn.Module, list[Acceleration]]:
    """Return {module: accelerations from the innermost to the outermost}."""
    known = discover(Acceleration)
    chosen: dict[nn.Module, list[Acceleration]] = {}
    for kind in sorted((known[name] for name in names), key=lambda kind: (kind.part, kind.name)):
        one = kind()
        for module in kind.modules(base).values():
            chosen.setdefault(module, []).append(one)
    return chosen
