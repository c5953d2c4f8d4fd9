"""Loading a base by name, folder, hub id or file, whatever its family."""

from __future__ import annotations

from pathlib import Path

import torch

from personae.core.devices import PRECISIONS, pick_device
from personae.core.registry import discover
from personae.errors import BaseError, UsageError
from personae.models.acceleration.choice import setting
from personae.models.acceleration.wide_products import lacks_kernels, widen_calls
from personae.models.family import Family
from personae.models.weights import sources
from personae.models.weights.notes import notes_of
from personae.models.weights.offloaded import Offloaded
from personae.models.weights.quantised import QUANTISED, pick_format, quantise


def load_base(
    source: str | Path = "toon",
    *,
    device: str = "auto",
    precision: str = "auto",
    acceleration: str = "auto",
    denoiser_unloaded: bool = False,
) -> Family:
    """Load a base model, frozen, ready for techniques.

    Args:
        source: an embedded name (`toon`), a diffusers folder, a hub id (`owner/name`), or a
            `.safetensors` checkpoint.
        device: auto, cuda, mps or cpu.
        precision: auto, bf16, fp16 or fp32: the format of the frozen weights; int8 or nf4 keep the
            denoiser's linear layers in 8 or 4 bits (needs torchao).
        acceleration: auto (measured on this machine), lean (those that take no memory), none, or
            names joined by commas. Unless it is none, calls of the base compute products in 16
            bits in float32 on processors without kernels for them; a backward pass of your own then
            belongs into `with widened(base)`.
        denoiser_unloaded: leave the denoiser's weights in their file, where that can be read again,
            until `base.unloaded.reload()`; calls before that read them part by part.

    Raises:
        BaseError: the source is not there, damaged, or of no known family.
    """
    quicker = setting(acceleration)
    where = sources.embedded_bases().get(str(source), source)
    chosen = pick_device(device)
    family = _family_of(where, source)
    dtype = _format_of(family, precision, chosen)
    unloaded = denoiser_unloaded and precision not in QUANTISED  # quantised in memory
    base = family.load(where, chosen, dtype, denoiser_unloaded=unloaded)
    if precision in QUANTISED:
        quantise(base.denoiser, precision)
        base.quantised = precision
    base.source, base.acceleration = str(source), quicker
    notes, file = notes_of(where)
    base.recommendations = notes.recommended
    base.configure(notes.base, str(file))
    if quicker != "none" and lacks_kernels(chosen, dtype):
        widen_calls(base)
    return base


def offload_blocks(base: Family, share: float) -> None:
    """Let a share of the denoiser's blocks lie in the host's memory until `keep_blocks`.

    Args:
        base: loaded, with nothing attached; where its denoiser is unloaded, the blocks are read
            straight into the host's memory when it is reloaded.
        share: of its repeated blocks, above 0 and at most 1.

    Raises:
        UnsupportedError: its denoiser has no such blocks, or is quantised.
    """
    base.offloaded = Offloaded(base.denoiser, share, base.device)
    if any(network is base.denoiser for network, _ in base.unloaded.files):
        base.unloaded.keep = base.offloaded.take
    else:
        base.offloaded.take(base.denoiser)


def keep_blocks(base: Family) -> None:
    """Put every block of the denoiser back on the device."""
    if base.offloaded is not None:
        base.offloaded.end()
        base.offloaded = None


def _family_of(where: str | Path, source: str | Path) -> type[Family]:
    """Return the family that recognises the base at `where`, which a person calls `source`.

    Raises:
        BaseError: none does, or there is no base.
    """
    families = discover(Family)
    for family in families.values():
        if family.recognises(where):
            return family
    kind = "a single file" if sources.is_single_file(where) else sources.pipeline_class(where)
    raise BaseError(
        f"base '{source}' is {kind}, which no family here loads ({', '.join(families)}); "
        "see docs/adding.md for adding one"
    )


def _format_of(family: type[Family], precision: str, device: torch.device) -> torch.dtype:
    """Return the number format of the frozen weights.

    Raises:
        UsageError: the family overflows in the one that was asked for.
    """
    dtype = pick_format(precision, device)
    if dtype not in family.overflows_in:
        return dtype
    if precision in PRECISIONS:
        raise UsageError(
            f"precision is '{precision}', in which bases of the kind {family.name} overflow; use "
            "bf16, or fp32 where the device has no bf16"
        )
    return torch.float32
