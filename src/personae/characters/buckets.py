"""Aspect-ratio buckets: sizes of equal area, and a picture scaled and cropped to one of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
from PIL import Image

from personae.errors import UsageError

MAX_RATIO: Final = 2.0
"""Longest side over shortest; beyond it base models have seen little (NovelAI, 2022: 2)."""

MIN_AREA: Final = 0.75
"""Smallest area of a bucket relative to the square, lest pictures be trained at another scale."""

Size = tuple[int, int]
CropMode = Literal["center", "random"]


def buckets(resolution: int, step: int, max_ratio: float = MAX_RATIO) -> tuple[Size, ...]:
    """Return the sizes (width, height) to train at, from tall to wide, the square among them.

    Each has at most the area of the square, at least `MIN_AREA` of it, and sides that are multiples
    of `step`; for each width it is the tallest such size. Source: NovelAI, "Aspect Ratio
    Bucketing" (2022).

    Args:
        resolution: side of the square in pixels, a multiple of `step`.
        step: what the base demands of sides, in pixels (64 for Stable Diffusion).
        max_ratio: longest side over shortest, at least 1; 1 leaves the square alone.

    Raises:
        UsageError: the resolution does not suit the step, or the ratio is below 1.
    """
    if step < 1 or resolution < step or resolution % step:
        raise UsageError(
            f"resolution is {resolution}; it must be a multiple of {step}, which the base demands"
        )
    if max_ratio < 1:
        raise UsageError(f"max_ratio is {max_ratio}; it must be 1 or more")
    area = resolution * resolution
    sizes = {(resolution, resolution)}
    for width in range(step, resolution, step):
        height = int(min(area // width, max_ratio * width)) // step * step
        if height > width and width * height >= MIN_AREA * area:
            sizes |= {(width, height), (height, width)}
    return tuple(sorted(sizes, key=lambda size: (size[0] / size[1], size)))


def nearest_bucket(size: Size, choices: Sequence[Size]) -> Size:
    """Return the bucket whose proportions are nearest to those of `size`, the larger on a tie."""
    proportion = math.log(size[0] / size[1])
    return min(
        choices,
        key=lambda choice: (
            round(abs(math.log(choice[0] / choice[1]) - proportion), 9),
            -choice[0] * choice[1],
        ),
    )


def fit(
    image: Image.Image,
    bucket: Size,
    mode: CropMode = "center",
    rng: np.random.Generator | None = None,
    *,
    mask: Image.Image | None = None,
) -> tuple[Image.Image, Image.Image | None]:
    """Return the picture, and its mask, scaled and cropped to `bucket`.

    The picture is scaled so that one side fits and the other is cropped, in the middle or anywhere.
    The mask is cropped at the same place.

    Args:
        image: any picture.
        bucket: width and height in pixels.
        mode: where to crop.
        rng: draws the place of a random crop.
        mask: the mask of the picture, of the same size.

    Raises:
        UsageError: a random crop without a generator, or a mask of another size.
    """
    if mask is not None and mask.size != image.size:
        raise UsageError(f"the mask is {mask.size}, the picture {image.size}; they must be equal")
    box = crop_box(image.size, bucket, mode, rng)
    # Cropping inside `resize` keeps the fraction of a pixel that cropping first would round away.
    fitted = image.resize(bucket, Image.Resampling.LANCZOS, box=box)
    if mask is None:
        return fitted, None
    # Lanczos rings beyond the edge of a mask; the average of the covered pixels does not.
    return fitted, mask.resize(bucket, Image.Resampling.BOX, box=box)


def crop_box(
    size: Size, bucket: Size, mode: CropMode, rng: np.random.Generator | None = None
) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of what `fit` shows of a picture of `size`.

    It is the largest box of the bucket's proportions, in the middle or anywhere.

    Raises:
        UsageError: a random crop without a generator.
    """
    if mode == "random" and rng is None:
        raise UsageError("a random crop needs a generator; pass rng")
    place = rng.random(2).tolist() if mode == "random" and rng is not None else [0.5, 0.5]
    scale = min(size[0] / bucket[0], size[1] / bucket[1])
    width, height = bucket[0] * scale, bucket[1] * scale
    left, top = (size[0] - width) * place[0], (size[1] - height) * place[1]
    return left, top, min(size[0], left + width), min(size[1], top + height)
