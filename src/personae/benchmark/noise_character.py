"""A character of coloured noise: time and memory do not depend on what pictures show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

NAME, CLASS_NOUN = "mira", "woman"


def paint_character(folder: Path, count: int, side: int, seed: int) -> Path:
    """Write `count` pictures of `side` pixels with captions into `folder` and return it.

    Another `seed` gives other pictures and captions, so that no cache of an earlier process helps.
    """
    folder.mkdir(parents=True)
    (folder / "character.toml").write_text(
        f'name = "{NAME}"\nclass_noun = "{CLASS_NOUN}"\nheld_out = []\n', encoding="utf-8"
    )
    rng = np.random.default_rng(seed)
    for number in range(count):
        colours = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(colours).save(folder / f"{number:03}.png")
        caption = f"{{name}} number {seed} {number}"
        (folder / f"{number:03}.txt").write_text(caption, encoding="utf-8")
    return folder
