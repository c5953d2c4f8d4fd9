"""What a base is, without loading it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from personae.core.tensor_header import read_tensor_header
from personae.errors import BaseError
from personae.models.weights.notes import notes_of
from personae.models.weights.sources import pipeline_class

AUTOENCODER = "vae"  # its folder in every pipeline of diffusers


@dataclass(frozen=True, slots=True)
class BaseDescription:
    """What a base is, without loading it.

    Attributes:
        kind: class of its pipeline. resolution: side in pixels of the pictures it was trained on,
            None if it does not say so. parameters: of its networks. bytes: of its
            folder.
        recommended: {technique: {field: value}}, the training advice of its `personae.toml`.
        path: its folder.
    """

    kind: str
    resolution: int | None
    parameters: int
    bytes: int
    recommended: dict[str, dict[str, Any]]
    path: Path


def describe_base(folder: Path) -> BaseDescription:
    """Describe the base in a diffusers folder; of its weights only the headers are read.

    Raises:
        BaseError: it is no such folder, or a file in it is damaged.
        UsageError: its training advice is not TOML.
    """
    kind = pipeline_class(folder) or ""
    try:
        parameters = sum(read_tensor_header(file).numel for file in folder.rglob("*.safetensors"))
        resolution = _resolution(folder)
    except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise BaseError(f"{folder}: is damaged ({error}); fetch the base again") from None
    return BaseDescription(
        kind=kind,
        resolution=resolution,
        parameters=parameters,
        bytes=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        recommended=notes_of(folder)[0].recommended,
        path=folder,
    )


def _resolution(folder: Path) -> int | None:
    """Return the side in pixels of the pictures the denoiser was trained on, if it says so."""
    parts = {
        path.parent.name: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob("*/config.json"))
    }
    if not all(isinstance(config, dict) for config in parts.values()):
        raise ValueError("a config.json holds no table")
    autoencoder = parts.pop(AUTOENCODER, {})
    pixels = autoencoder.get("sample_size")  # the denoiser's own is in latents
    latents = next((each["sample_size"] for each in parts.values() if "sample_size" in each), None)
    blocks = autoencoder.get("block_out_channels")
    if isinstance(latents, int) and blocks:
        pixels = latents * 2 ** (len(blocks) - 1)
    return pixels if isinstance(pixels, int) else None
