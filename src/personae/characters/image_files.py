"""One picture of the character as the user brought it: found, decoded, turned upright, in sRGB.

A decoded picture is 8-bit RGB or RGBA whatever the file held (palette, grey, 16 bit, CMYK, a
wide-gamut profile). Nothing here knows where the picture came from or what is done with it.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageCms, ImageOps

from personae.errors import CharacterError

SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})
"""File names that count as pictures, in lower case."""

MAX_PIXELS: Final = 89_478_485
"""Largest picture decoded: Pillow's own limit against decompression bombs (a quarter of a GiB)."""

BACKDROP: Final = (255, 255, 255)
"""What shows through transparent pixels: white, as every viewer and character sheet draws them.

A grey that no caption names would be learnt as part of the character; white is a background that
base models know by its name. With a masked loss the choice does not matter, since the alpha
channel is the mask.
"""

_DECODERS: Final = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
_DAMAGE: Final = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    struct.error,
    zlib.error,
)


def load_picture(path: Path) -> Image.Image:
    """Decode a picture file, upright and in sRGB, as mode "RGB", or "RGBA" if it has alpha.

    Raises:
        CharacterError: names the file and what is wrong with it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a broken EXIF tag harms no pixel
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_DECODERS) as picture:
                _refuse_frames(path, picture)
                _refuse_size(path, *picture.size)
                picture.load()
                return _to_srgb(ImageOps.exif_transpose(picture))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise CharacterError(
            f"{path}: has more than {MAX_PIXELS / 1e6:.0f} million pixels; scale it down first"
        ) from None
    except _DAMAGE as error:
        raise CharacterError(f"{path}: {_why_unreadable(path, error)}") from None


def flatten(picture: Image.Image) -> Image.Image:
    """Return an "RGB" or "RGBA" picture as "RGB", transparent pixels laid on `BACKDROP`."""
    if picture.mode == "RGB":
        return picture
    backdrop = Image.new("RGBA", picture.size, (*BACKDROP, 255))
    return Image.alpha_composite(backdrop, picture).convert("RGB")


def alpha_mask(picture: Image.Image) -> Image.Image | None:
    """Return the alpha channel as a mask, or None if every pixel is opaque."""
    if picture.mode != "RGBA":
        return None
    alpha = picture.getchannel("A")
    return None if alpha.getextrema()[0] == 255 else alpha


def load_mask(path: Path, size: tuple[int, int]) -> Image.Image:
    """Decode a mask file as mode "L" at `size` (width, height).

    Raises:
        CharacterError: unreadable, proportions off by over one per cent, or black everywhere.
    """
    mask = load_picture(path)
    if mask.mode == "RGBA":
        black = Image.new("RGBA", mask.size, (0, 0, 0, 255))
        mask = Image.alpha_composite(black, mask)
    mask = mask.convert("L")
    if mask.getextrema()[1] == 0:
        raise CharacterError(
            f"{path}: the mask is black everywhere; paint the character white, or delete the file"
        )
    if mask.size == size:
        return mask
    proportion = (mask.width * size[1]) / (mask.height * size[0])
    if not 0.99 <= proportion <= 1.01:
        raise CharacterError(
            f"{path}: the mask is {mask.width}x{mask.height}, its picture {size[0]}x{size[1]}; "
            "draw the mask over the whole picture"
        )
    return mask.resize(size, Image.Resampling.BILINEAR)


def _refuse_frames(path: Path, picture: Image.Image) -> None:
    # A phone's JPEG with a depth map or preview beside it (MPO) has frames, yet is one still.
    frames = 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)
    if frames > 1:
        raise CharacterError(
            f"{path}: is animated ({frames} frames); save the frame you want as a PNG"
        )


def _refuse_size(path: Path, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise CharacterError(
            f"{path}: is {width}x{height}, more than {MAX_PIXELS / 1e6:.0f} million pixels; "
            "scale it down first"
        )


def _why_unreadable(path: Path, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "does not exist; check the name"
    if isinstance(error, PermissionError):
        return "may not be read; change its permissions"
    if isinstance(error, IsADirectoryError):
        return "is a folder, not a picture"
    if path.is_file() and path.stat().st_size == 0:
        return "is empty (0 bytes); copy the picture again"
    if isinstance(error, Image.UnidentifiedImageError):
        return "is not a PNG, JPEG, WebP or BMP picture, or is damaged; save it again as a PNG"
    return f"is damaged ({' '.join(str(error).split())}); copy or export the picture again"


def _to_srgb(picture: Image.Image) -> Image.Image:
    has_alpha = "A" in picture.getbands() or "transparency" in picture.info
    alpha = picture.convert("RGBA").getchannel("A") if has_alpha else None
    colours = _through_profile(_eight_bit(picture), picture.info.get("icc_profile"))
    if alpha is not None:
        if alpha.getextrema()[1] == 0:
            raise ValueError("transparent everywhere")
        colours.putalpha(alpha)
    return colours


def _eight_bit(picture: Image.Image) -> Image.Image:
    """Return the colours in a mode that colour profiles know: "L", "RGB" or "CMYK"."""
    if picture.mode.startswith("I"):
        # Pillow's own conversion clips 16-bit greys at 255 instead of scaling them (65535 = 257
        # times 255); of the formats decoded here only a 16-bit PNG has such a mode.
        grey = np.asarray(picture).astype(np.float32) / 257.0
        return Image.fromarray(np.clip(np.rint(grey), 0, 255).astype(np.uint8))
    return picture if picture.mode in ("L", "RGB", "CMYK") else picture.convert("RGB")


def _through_profile(colours: Image.Image, profile: bytes | None) -> Image.Image:
    """Return "RGB" in sRGB; without a usable profile the plain conversion has to do."""
    if not profile:
        return colours.convert("RGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(source).lower():
            return colours.convert("RGB")
        srgb = ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(colours, source, srgb, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return colours.convert("RGB")
