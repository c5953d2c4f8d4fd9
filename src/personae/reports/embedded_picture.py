"""Pictures inside of a page, as data."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

SIDE = 512
"""Longest side of an embedded picture in pixels; larger ones are made smaller."""
QUALITY = 90
EXACT_SIDE = 256
"""Up to this side in pixels a picture keeps its very pixels; larger ones hide small losses."""


@dataclass(frozen=True, slots=True)
class ShownPicture:
    """A picture on a page.

    Attributes:
        source: the picture itself, as a data URI. width, height: of what it holds, in pixels.
        title: said of it in a few words. prompt: what was asked for, or its caption.
        detail: how it was drawn, for those who enlarge it.
    """

    source: str
    width: int
    height: int
    title: str
    prompt: str = ""
    detail: str = ""


def shown(image: Image.Image, title: str, prompt: str = "", detail: str = "") -> ShownPicture:
    """Return a picture as pages show it; large ones are made smaller."""
    small = image.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    exact = max(small.size) <= EXACT_SIDE
    small.save(buffer, "WEBP", lossless=exact, quality=QUALITY, method=4)
    source = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
    return ShownPicture(source, small.width, small.height, title, prompt, detail)


def open_picture(path: Path) -> Image.Image | None:
    """Return the picture of a file, None if it is missing or damaged."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
