"""Weights in several files, and the index that says what lies where."""

from __future__ import annotations

import json
from pathlib import Path

LARGEST_INDEX = 16 * 2**20
MOST_SHARDS = 256


def index_file(folder: Path, name: str) -> Path | None:
    """Return the index of the parts of a file `name`, or of its fp16 variant; None without one."""
    for ending in ("index.json", "index.fp16.json"):
        if (folder / f"{name}.{ending}").is_file():
            return folder / f"{name}.{ending}"
    return None


def listed_parts(index: Path) -> dict[str, Path]:
    """Return {tensor: the safetensors file beside the index that holds it}.

    Raises:
        ValueError: the index is damaged, or lists a file that is not there; the text is the reason,
            without the path.
    """
    try:
        if index.stat().st_size > LARGEST_INDEX:
            raise OSError
        listed: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        parts = sorted(set(listed.values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError("is no index of weights; it is damaged, fetch it again") from None
    if not parts or len(parts) > MOST_SHARDS:
        raise ValueError(f"lists {len(parts)} files; expected 1 to {MOST_SHARDS}")
    for part in parts:
        plain = isinstance(part, str) and Path(part).name == part and part.endswith(".safetensors")
        if not plain:
            raise ValueError(f"lists '{part}'; expected safetensors files beside it")
    missing = [part for part in parts if not (index.parent / part).is_file()]
    if missing:
        raise ValueError(
            f"lists '{missing[0]}', which is not there ({len(parts) - len(missing)} of "
            f"{len(parts)} files are); fetch it"
        )
    return {name: index.parent / part for name, part in listed.items()}
