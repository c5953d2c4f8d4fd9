"""What identifies the weights of a base, read from few of them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import nn

from personae.core.devices import HOST
from personae.models.weights.places import places_of, spread_values, weight_files

SPREAD = 64  # values of each tensor that a fingerprint covers


def fingerprint(network: nn.Module, folder: Path | None = None) -> str:
    """Return 16 hex digits that identify the weights of `network`.

    Covers every name and shape, and up to 64 values spread over each tensor, rounded to bf16, so
    that a base has one fingerprint in fp32 and bf16, and is read in milliseconds.

    Args:
        network: gives names, shapes and, without `folder`, values.
        folder: the diffusers folder it was loaded from. Values are then those on disk: weights
            kept in fp32 and loaded into fp16 would be rounded twice, and differ.
    """
    stored = _stored_values(network, folder) if folder else None
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        if stored or not tensor.is_meta:
            some = stored[name] if stored else _spread(tensor)
            some = some.float().to(HOST, torch.bfloat16)
            digest.update(some.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:16]


def _spread(tensor: torch.Tensor) -> torch.Tensor:
    flat = tensor.detach().flatten()
    return flat[:: max(1, len(flat) // SPREAD)]


def _stored_values(network: nn.Module, folder: Path) -> dict[str, torch.Tensor] | None:
    """Return the same values as they are on disk, or None where they cannot be read here."""
    places = places_of(network, weight_files(folder)) or {}
    return {name: spread_values(entry, SPREAD) for name, entry in places.items()} or None
