"""Folders of small pictures with captions, as people bring them."""

from pathlib import Path

import numpy as np
from PIL import Image

CAPTIONS = ("mira girl on a beach", "mira girl, smiling, in the rain", "portrait of mira girl")


def draw(path: Path, seed: int, size: tuple[int, int] = (48, 40)) -> Path:
    """Draw coloured cells, others for each seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(cells).resize(size, Image.Resampling.NEAREST).save(path)
    return path


def pictures(folder: Path, suffix: str | None = ".txt") -> Path:
    """Draw a picture for each of `CAPTIONS`, with caption files unless `suffix` is None."""
    for number, caption in enumerate(CAPTIONS):
        draw(folder / f"{number}.png", number)
        if suffix is not None:
            (folder / f"{number}{suffix}").write_text(caption + "\n", encoding="utf-8")
    return folder
