"""Folders of pretrained weights: shipped ones, the user's own, and those fetched from the hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from personae.errors import EncoderError

T = TypeVar("T")

_CARD: Final = ["*.json", "*.txt", "*.safetensors"]
_SAFE: Final = "*.safetensors"
_PICKLE: Final = "pytorch_model.bin"


def weights_folder(source: str | Path, encoder: str) -> Path:
    """Return the local folder of a transformers model, fetching a hub id the first time.

    Args:
        source: a folder, or a hub id (`owner/name`).
        encoder: name of the encoder that needs it, for messages.

    Raises:
        EncoderError: no such folder, or the hub cannot be reached and nothing was fetched before.
    """
    if Path(source).is_dir():
        return Path(source)
    if isinstance(source, Path) or str(source).count("/") != 1 or str(source)[0] in "./~":
        raise EncoderError(
            f"encoder {encoder}: there is no folder '{source}'; give a folder with config.json "
            "and model.safetensors, or a hub id (owner/name)"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        folder = _cached(source) or Path(snapshot_download(source, allow_patterns=_CARD))
        if not any(folder.glob(_SAFE)):
            # Older uploads have no safetensors; transformers reads the other with weights_only.
            snapshot_download(source, allow_patterns=[*_CARD, _PICKLE])
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise EncoderError(
            f"encoder {encoder}: the weights of '{source}' are not on this machine and could not "
            f"be fetched ({reason}); connect once, give a folder ({encoder}:FOLDER), or use "
            "toon_identity and toon_clip, which are shipped"
        ) from None
    return folder


def on_this_machine(source: str | Path) -> bool:
    """Say whether a folder is there, or a hub id was fetched before; the network is not asked."""
    return Path(source).is_dir() or (isinstance(source, str) and _cached(source) is not None)


def _cached(source: str) -> Path | None:
    """Return the folder of a hub id fetched earlier, complete with weights, or None."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(source, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    has_weights = any(folder.glob(_SAFE)) or (folder / _PICKLE).exists()
    return folder if has_weights and (folder / "config.json").exists() else None


def opened(load: Callable[[], T], source: str | Path, encoder: str) -> T:
    """Return what `load` makes of a folder of weights.

    Raises:
        EncoderError: a file is missing, damaged, or of another model.
    """
    from safetensors import SafetensorError

    try:
        return load()
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise EncoderError(
            f"encoder {encoder}: '{source}' could not be loaded ({reason}); fetch it again or "
            "give another folder"
        ) from None
