"""Whether a picture that was drawn again is the one it was drawn after."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from personae.generation.picture import Picture
from personae.generation.picture_metadata import FORMATS, QUALITY
from personae.version import __version__


def difference(drawn: Picture, wanted: Path) -> str:
    """Return in words how the pixels of `drawn` differ from those of a file, or nothing.

    Args:
        drawn: what was drawn again.
        wanted: a picture that can be read; one in a lossy format is compared with `drawn` as that
            format would keep it.
    """
    with Image.open(wanted) as image:
        kind = image.format
        theirs = np.asarray(image.convert("RGB"), dtype=np.int16)
    mine = np.asarray(_as_kept(drawn.image, kind), dtype=np.int16)
    if mine.shape != theirs.shape:
        sizes = (f"{shape[1]} x {shape[0]}" for shape in (theirs.shape, mine.shape))
        return f"it has {' pixels, this one '.join(sizes)}"
    apart = np.abs(mine - theirs)
    if not apart.any():
        return ""
    told = f"{np.mean(apart > 0):.1%} of the values differ, by {apart.max()} of 255 at most"
    version = drawn.recipe.version
    by = f"; it was drawn by personae {version}, this is {__version__}"
    return told + (by if version != __version__ else "")


def _as_kept(image: Image.Image, kind: str | None) -> Image.Image:
    if kind not in set(FORMATS.values()) - {"PNG"}:
        return image.convert("RGB")
    buffer = io.BytesIO()
    image.save(buffer, format=kind, quality=QUALITY)
    with Image.open(buffer) as kept:
        return kept.convert("RGB")
