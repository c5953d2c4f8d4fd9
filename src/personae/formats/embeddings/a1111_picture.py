"""Embeddings that A1111 keeps in a picture: as text, or in the low bits of strips at both sides.

The strips hold a compressed JSON, four bits a colour value: the low halves of its bytes left of the
picture, the high halves right of it, a black column between. The bits are mixed with the numbers of
the generator s = 1664525 s + 1013904223 mod 2^32, each mod 255.
"""

from __future__ import annotations

import base64
import json
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

SUFFIXES = (".png", ".webp")
TEXT = "sd-ti-embedding"
TENSOR = "TORCHTENSOR"
MOST_PIXELS = 2**24
MOST_VALUES = 2**22
"""Of a strip; 75 vectors of width 1280 take about 800,000."""
LARGEST_JSON = 2**25


def embedding_in(path: Path) -> dict[str, Any] | None:
    """Return what A1111 put into a picture, tensors as tensors; None if there is nothing.

    Damaged pictures hold nothing. Memory stays within a few times `MOST_PIXELS` bytes.
    """
    if path.suffix.lower() not in SUFFIXES or not path.is_file():
        return None
    if path.stem.lower().endswith(".preview"):
        return None  # A1111 keeps the pictures it shows under that name
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(path)
        with image:
            if image.width * image.height > MOST_PIXELS:
                return None
            text = image.info.get(TEXT)
            if isinstance(text, str):
                return _parsed(base64.b64decode(text, validate=True)[:LARGEST_JSON])
            content = _from_strips(np.asarray(image.convert("RGB")))
        return None if content is None else _parsed(content)
    except (OSError, ValueError, TypeError, KeyError, SyntaxError, RecursionError):
        return None
    except (zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None


def _parsed(content: bytes) -> dict[str, Any] | None:
    values = json.loads(content)
    if not isinstance(values, dict) or not isinstance(values.get("string_to_param"), dict):
        return None
    table = {word: _tensor(value) for word, value in values["string_to_param"].items()}
    return values | {"string_to_param": table}


def _tensor(value: Any) -> Tensor:
    return torch.tensor(value[TENSOR], dtype=torch.float32)


def _from_strips(pixels: np.ndarray) -> bytes | None:
    """Return the bytes hidden in (height, width, 3) pixels, or None."""
    lit = np.asarray((pixels > 0).all(2))
    rows, columns = np.flatnonzero(lit.any(1)), np.flatnonzero(lit.any(0))
    if not len(rows):
        return None
    inner = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] & 0x0F
    gaps = np.flatnonzero(inner.sum((0, 2)) == 0)
    if len(gaps) < 2:
        return None
    low, high = inner[:, : gaps[0]], inner[:, gaps[-1] + 1 :]
    if low.shape != high.shape or not 0 < low.size <= MOST_VALUES:
        return None
    mask = _mask(low.size).reshape(low.shape)
    joined = ((high ^ mask) << 4) | (low ^ mask)
    return zlib.decompressobj().decompress(joined.tobytes(), LARGEST_JSON)


def _mask(count: int) -> np.ndarray:
    """Return the four bits that each value is mixed with."""
    numbers, state = np.empty(count, np.uint8), 0
    for i in range(count):
        state = (1664525 * state + 1013904223) % 2**32
        numbers[i] = state % 255 & 0x0F
    return numbers
