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
from typing import Final, Literal

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from personae.core.files import lfs_pointer
from personae.errors import CharacterError

SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp"})
"""File names that count as pictures, in lower case."""

MAX_PIXELS: Final = 89_478_485
"""Largest picture decoded: Pillow's own limit against decompression bombs (a quarter of a GiB)."""

BACKDROP: Final = (255, 255, 255)
"""What shows through transparent pixels: white, as every viewer and character sheet draws them.

A grey that no caption names would be learnt as part of the character; white is a background that
base models know by its name. With a masked loss the choice does not matter, since the alpha
channel is the mask.
"""

_PNG_START: Final = b"\x89PNG\r\n\x1a\n"
_PNG_TEXTS: Final = (b"tEXt", b"zTXt", b"iTXt")
_ORIENTATION: Final = 0x0112
_INTEGER_BYTES: Final = {1: 1, 3: 2, 4: 4, 6: 1, 8: 2, 9: 4}
"""Bytes of the whole-numbered TIFF types: BYTE, SHORT, LONG, SBYTE, SSHORT, SLONG."""
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
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
            return _decode(path)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise CharacterError(
            f"{path}: has more than {MAX_PIXELS / 1e6:.0f} million pixels; scale it down first"
        ) from None
    except _DAMAGE as error:
        raise CharacterError(f"{path}: {_why_unreadable(path, error)}") from None


def _decode(path: Path) -> Image.Image:
    try:
        return _decode_from(path, path)
    except ValueError:  # what Pillow raises for a PNG with more text than it wants to hold
        pixels = _without_texts(path)
        if pixels is None:
            raise
        return _decode_from(path, pixels)


def _decode_from(path: Path, source: Path | io.BytesIO) -> Image.Image:
    with Image.open(source, formats=_DECODERS) as picture:
        _refuse_frames(path, picture)
        _refuse_size(path, *picture.size)
        picture.load()
        return _to_srgb(_upright(picture))


def _without_texts(path: Path) -> io.BytesIO | None:
    """Return a PNG without its text chunks, which pixels do not need; None if it is no PNG."""
    content = path.read_bytes()
    at = len(_PNG_START)
    if content[:at] != _PNG_START:
        return None
    kept = [_PNG_START]
    while at < len(content):
        end = at + 12 + int.from_bytes(content[at : at + 4])  # length, kind, data, checksum
        if content[at + 4 : at + 8] not in _PNG_TEXTS:
            kept.append(content[at:end])
        at = end
    return io.BytesIO(b"".join(kept))


def _upright(picture: Image.Image) -> Image.Image:
    """Return the picture turned as its EXIF orientation says; nothing else there is read."""
    exif = picture.info.get("exif")
    orientation = exif_orientation(exif) if isinstance(exif, bytes) else None
    if orientation is None:
        try:  # PNGs from other programs keep it in a text, some files in XMP
            orientation = picture.getexif().get(_ORIENTATION)
        except Exception:  # whatever spoils metadata, the pixels are whole
            orientation = None
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return picture if turn is None else picture.transpose(turn)


def exif_orientation(exif: bytes) -> int | None:
    """Return the orientation in a block of EXIF data, 1 to 8, or None if it does not say.

    Only this entry of the first directory is read, whatever types the others have. Source: TIFF 6.0
    section 2, and section 8 for the eight values.
    """
    tiff = exif.removeprefix(b"Exif\0\0")
    order: Literal["little", "big"] = "little" if tiff[:2] == b"II" else "big"
    start = int.from_bytes(tiff[4:8], order)
    count = int.from_bytes(tiff[start : start + 2], order)
    for at in range(start + 2, min(start + 2 + 12 * count, len(tiff)), 12):
        if int.from_bytes(tiff[at : at + 2], order) == _ORIENTATION:
            size = _INTEGER_BYTES.get(int.from_bytes(tiff[at + 2 : at + 4], order), 0)
            value = int.from_bytes(tiff[at + 8 : at + 8 + size], order)
            return value if 1 <= value <= 8 else None
    return None


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


def load_mask(path: Path, size: tuple[int, int], *, inverted: bool = False) -> Image.Image:
    """Decode a mask file as mode "L" at `size` (width, height); white is the character.

    Args:
        path: the file.
        size: of the picture it belongs to.
        inverted: the file marks the character black.

    Raises:
        CharacterError: unreadable, proportions off by over one per cent, or black everywhere.
    """
    mask = load_picture(path)
    if mask.mode == "RGBA":
        black = Image.new("RGBA", mask.size, (0, 0, 0, 255))
        mask = Image.alpha_composite(black, mask)
    mask = ImageOps.invert(mask.convert("L")) if inverted else mask.convert("L")
    if mask.getextrema()[1] == 0:
        everywhere, mark = ("white", "black") if inverted else ("black", "white")
        raise CharacterError(
            f"{path}: the mask is {everywhere} everywhere; paint the character {mark}, "
            "or delete the file"
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
    if isinstance(error, UnidentifiedImageError):
        pointer = lfs_pointer(path)
        if pointer:
            return f"is no picture: {pointer}"
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
        converted = ImageCms.profileToProfile(colours, source, srgb, outputMode="RGB")
        return colours.convert("RGB") if converted is None else converted  # None only in place
    except (ImageCms.PyCMSError, OSError):
        return colours.convert("RGB")
