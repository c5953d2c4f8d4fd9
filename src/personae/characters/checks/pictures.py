"""What `personae check` says of pictures: each by itself, and all of them together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from personae.characters.buckets import MAX_RATIO
from personae.characters.checks import image_measures as measures
from personae.characters.checks.finding import Finding
from personae.characters.duplicates import difference_hash, near_duplicates
from personae.characters.image_files import alpha_mask, flatten, load_picture
from personae.characters.reference import Reference

FEW: Final = 5
"""Below this, a technique learns the pictures rather than the character."""

ALIKE: Final = 0.8
"""Share of pictures with one framing or one background from which variety is missing."""

_DISTANCE: Final = {"close": "close up", "medium": "at a medium distance", "far": "far away"}


@dataclass(frozen=True, slots=True)
class PictureRow:
    """What was measured of one picture.

    Attributes:
        file: the picture.
        width: in pixels, upright.
        height: in pixels, upright.
        framing: how near the subject is.
        subject_share: part of the picture that the subject's box covers, or None.
        background: name of the colour along the borders.
        sharpness: edge sharpness at the training resolution; blurred below 1.
        tokens: length of the caption, or None without one.
        has_mask: a mask file or an alpha channel marks the character.
        mask_share: part of the picture that the mask marks, in [0, 1]; None without one.
    """

    file: Path
    width: int
    height: int
    framing: measures.Framing
    subject_share: float | None
    background: str
    sharpness: float
    tokens: int | None
    has_mask: bool
    mask_share: float | None


@dataclass(frozen=True, slots=True)
class Measured:
    """A readable picture with everything measured of it.

    Attributes:
        row: what the report shows.
        difference_hash: 64 bits that near-duplicates share but for a few.
        histogram: colours along the borders.
        transparent: share of pixels that are not opaque.
    """

    row: PictureRow
    difference_hash: int
    histogram: np.ndarray
    transparent: float


def measure(reference: Reference, resolution: int, tokens: int | None) -> Measured:
    """Return what can be measured of one picture, decoding it once.

    Args:
        reference: the picture.
        resolution: shorter side, in pixels, at which will be trained.
        tokens: length of its caption.

    Raises:
        CharacterError: the picture or its mask cannot be used.
    """
    picture = load_picture(reference.path)
    image, alpha = flatten(picture), alpha_mask(picture)
    mask = reference.mask_of(picture)
    share = measures.subject_share(image, mask)
    row = PictureRow(
        file=reference.path,
        width=image.width,
        height=image.height,
        framing=measures.framing(share),
        subject_share=share,
        background=measures.background_colour(image, mask),
        sharpness=measures.edge_sharpness(image, resolution),
        tokens=tokens,
        has_mask=mask is not None,
        mask_share=None if mask is None else float(np.asarray(mask).mean()) / 255,
    )
    transparent = 0.0 if alpha is None else float((np.asarray(alpha) < 255).mean())
    histogram = measures.background_histogram(image, mask)
    return Measured(row, difference_hash(image), histogram, transparent)


def of_picture(one: Measured, resolution: int) -> Iterator[Finding]:
    """Yield what is wrong with one picture by itself."""
    row, shorter = one.row, min(one.row.width, one.row.height)
    if shorter < resolution:
        yield Finding(
            "warning",
            "tiny",
            row.file,
            f"is {row.width}x{row.height}; training at {resolution} px would enlarge it and teach "
            "blur; bring a larger one",
        )
    if row.sharpness < measures.BLURRED_BELOW:
        yield Finding(
            "warning",
            "blurred",
            row.file,
            f"is blurred (edge sharpness {row.sharpness:.2f}, sharp pictures have over "
            f"{measures.BLURRED_BELOW:g}); the blur would be learnt; bring a sharper one",
        )
    ratio = max(row.width, row.height) / shorter
    if ratio > MAX_RATIO:
        yield Finding(
            "note",
            "proportions",
            row.file,
            f"is {row.width}x{row.height}; {1 - MAX_RATIO / ratio:.0%} or more of its length is "
            "cropped away; crop it yourself to choose what stays",
        )
    if one.transparent > 0:
        yield Finding(
            "note",
            "transparent",
            row.file,
            f"{one.transparent:.0%} of it is transparent: white is laid behind, and the opaque "
            "part serves as mask",
        )


def of_set(measured: Sequence[Measured], home: Path) -> Iterator[Finding]:
    """Yield what is wrong with the pictures taken together; `home` stands for all of them."""
    count = len(measured)
    if count == 1:
        yield Finding(
            "warning",
            "one-picture",
            home,
            "holds one picture, which will be copied rather than learnt; bring 5 to 20",
        )
    elif count < FEW:
        yield Finding(
            "warning",
            "few-pictures",
            home,
            f"holds {count} pictures; none is held out, so likeness cannot be measured on unseen "
            "ones; bring 5 to 20",
        )
    pairs = near_duplicates([one.difference_hash for one in measured])
    twin = {j: i for i, j in reversed(pairs)}  # of several twins the first is named
    for j, i in sorted(twin.items()):
        yield Finding(
            "warning",
            "near-duplicate",
            measured[j].row.file,
            f"shows nearly the same as {measured[i].row.file.name}; keep both only if a detail "
            "such as the expression matters",
        )
    if count >= FEW:
        yield from _of_variety(measured, home)


def background_groups(measured: Sequence[Measured]) -> list[tuple[str, int]]:
    """Return the groups of like backgrounds as (colour, pictures), the largest first."""
    groups = measures.group_backgrounds([one.histogram for one in measured])
    colours = {
        group: one.row.background for group, one in reversed([*zip(groups, measured, strict=True)])
    }
    return [(colours[group], count) for group, count in Counter(groups).most_common()]


def _of_variety(measured: Sequence[Measured], home: Path) -> Iterator[Finding]:
    count = len(measured)
    framing, shown = Counter(one.row.framing for one in measured).most_common(1)[0]
    if framing != "unclear" and shown >= ALIKE * count:
        yield Finding(
            "warning",
            "framing",
            home,
            f"{shown} of {count} pictures show the character {_DISTANCE[framing]}; it will be hard "
            "to draw otherwise; add some from other distances",
        )
    colour, alike = background_groups(measured)[0]
    masked = all(one.row.has_mask for one in measured)
    if alike >= ALIKE * count:
        advice = "train with the masked loss" if masked else "add others, or masks"
        yield Finding(
            "warning",
            "background",
            home,
            f"{alike} of {count} pictures have the same background ({colour}), which will be "
            f"learnt with the character; {advice}, and name the background in the captions",
        )
