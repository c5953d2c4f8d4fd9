"""Settings inside pictures: ours and those of other tools, in PNG, JPEG and WebP.

PNG keeps them in text chunks, JPEG and WebP in EXIF.
"""

from __future__ import annotations

import base64
import json
import logging
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo
from pydantic import ValidationError

from personae.core.files import free_path, replacing
from personae.errors import UsageError
from personae.generation.infotext import (
    LONGEST_TEXT,
    Settings,
    from_infotext,
    from_invokeai,
    to_infotext,
    to_invokeai,
)
from personae.generation.picture import CHUNK, Picture, parse_recipe
from personae.generation.recipe import Recipe
from personae.generation.sampler import Shot

logger = logging.getLogger(__name__)

A1111 = "parameters"
INVOKEAI = "invokeai_metadata"

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_QUALITY = 95
_SLUG_LENGTH = 48  # letters of a prompt in the name of a file
_UNICODE = b"UNICODE\0"
_PACKED = "zlib:"
"""Begins a text of ours that is compressed and written in base 64."""
_JPEG_ROOM = 65_527  # a segment holds 65,535 bytes, its own length and "Exif" among them


def settings_of(recipe: Recipe, size: tuple[int, int]) -> Settings:
    """Return what a recipe says in the words of `Settings`.

    Args:
        recipe: of a picture of ours.
        size: width and height of the picture in pixels.
    """
    extra = {"Model hash": recipe.fingerprint[:10]}
    if recipe.cast:
        extra["Lora hashes"] = ", ".join(
            f"{name}: {member.content_hash[:12]}" for name, member in recipe.cast.items()
        )
    extra["Version"] = f"personae {recipe.version}"
    return Settings(
        prompt=recipe.prompt,
        negative_prompt=recipe.sampling.negative_prompt,
        seed=recipe.seed,
        steps=recipe.sampling.steps,
        guidance_scale=recipe.sampling.guidance_scale,
        width=size[0],
        height=size[1],
        sampler=recipe.sampling.sampler,
        model=Path(recipe.base).stem,
        extra=extra,
    )


def save_picture(picture: Picture, path: str | Path) -> Path:
    """Write a picture with its recipe and in the words of other tools, and return the path.

    Args:
        picture: what to write.
        path: ends in .png, .jpg, .jpeg or .webp. Only PNG keeps the very pixels.

    Raises:
        UsageError: the ending is another.
    """
    path = Path(path)
    if path.suffix.lower() not in _FORMATS:
        raise UsageError(f"{path}: pictures are written as {', '.join(_FORMATS)}")
    settings = settings_of(picture.recipe, picture.image.size)
    texts = {
        A1111: to_infotext(settings),
        INVOKEAI: to_invokeai(settings),
        CHUNK: picture.recipe.model_dump_json(),
    }
    with replacing(path) as temporary:
        if path.suffix.lower() == ".png":
            picture.image.save(temporary, format="PNG", pnginfo=_chunks(texts))
        else:
            kind = _FORMATS[path.suffix.lower()]
            exif = _fitting_exif(texts, path) if kind == "JPEG" else _exif(texts)
            picture.image.save(temporary, format=kind, quality=_QUALITY, exif=exif)
    return path


def _fitting_exif(texts: Mapping[str, str], path: Path) -> Image.Exif:
    """Return EXIF that a JPEG can hold; what has no room is packed, at last left out with a word.

    A recipe names the prompts of its whole batch, which grow beyond 64 KiB but pack well.
    """
    packed = base64.b64encode(zlib.compress(texts[CHUNK].encode())).decode()
    with_packed = {**texts, CHUNK: _PACKED + packed}
    without_json = {name: text for name, text in with_packed.items() if name != INVOKEAI}
    for content in (texts, with_packed, without_json):
        exif = _exif(content)
        if len(exif.tobytes()) <= _JPEG_ROOM:
            return exif
    logger.warning("%s: its recipe is too long for a JPEG and left out; use --format png", path)
    exif = _exif({A1111: texts[A1111]})
    return exif if len(exif.tobytes()) <= _JPEG_ROOM else Image.Exif()


def read_recipe(path: str | Path) -> Recipe | None:
    """Return the recipe that a picture of ours holds, or None if another tool drew it.

    Raises:
        UsageError: no such file, not a picture, or its recipe is damaged.
    """
    text = read_texts(path).get(CHUNK)
    return None if text is None else parse_recipe(text, path)


def read_texts(path: str | Path) -> dict[str, str]:
    """Return {name: text} of what a picture says of itself.

    Raises:
        UsageError: no such file, or not a picture.
    """
    try:
        with Image.open(path) as image:
            texts = {
                name: value[:LONGEST_TEXT]
                for name, value in image.info.items()
                if isinstance(name, str) and isinstance(value, str)
            }
            return _from_exif(image.getexif()) | texts
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file; check the path") from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, KeyError) as error:
        raise UsageError(f"{path}: is not a readable picture ({error})") from None
    except Image.DecompressionBombError:
        raise UsageError(f"{path}: is larger than a picture may be") from None


def read_settings(path: str | Path) -> Settings:
    """Return how a picture was drawn, whichever tool drew it.

    Raises:
        UsageError: no such file, not a picture, or without settings that can be read.
    """
    texts = read_texts(path)
    recipe = _recipe(texts.get(CHUNK))
    if recipe is not None:
        with Image.open(path) as image:
            return settings_of(recipe, image.size)
    for name, reader in ((A1111, from_infotext), (INVOKEAI, from_invokeai)):
        found = reader(texts[name]) if name in texts else None
        if found is not None:
            return found
    raise UsageError(
        f"{path}: holds no settings of personae, A1111 or InvokeAI; the tool that saved it may "
        "have dropped them"
    )


def shot_like(path: str | Path) -> tuple[Shot, dict[str, Any]]:
    """Return what a picture was asked for, and the fields of `Sampling` that it names.

    Raises:
        UsageError: no such file, not a picture, or without settings that can be read.
    """
    settings = read_settings(path)
    return Shot(settings.as_prompt, settings.seed or 0), settings.sampling()


def new_path(recipe: Recipe, folder: Path, suffix: str = ".png") -> Path:
    """Return a free name in `folder` made from a picture's prompt and seed."""
    words = re.sub(r"\W+", "-", recipe.prompt.lower()).strip("-")[:_SLUG_LENGTH].strip("-")
    return free_path(folder, f"{words or 'picture'}-{recipe.seed}", suffix)


def _recipe(text: str | None) -> Recipe | None:
    try:
        return None if text is None else Recipe.model_validate_json(text)
    except ValidationError:
        return None


def _chunks(texts: Mapping[str, str]) -> PngInfo:
    info = PngInfo()
    for name, text in texts.items():
        info.add_itxt(name, text) if name == CHUNK else info.add_text(name, text)
    return info


def _exif(texts: Mapping[str, str]) -> Image.Exif:
    """Return EXIF with A1111's text as the comment, and all the others as JSON beside it."""
    exif = Image.Exif()
    comment = _UNICODE + texts[A1111].encode("utf-16-be")
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
    others = {name: text for name, text in texts.items() if name != A1111}
    exif[ExifTags.Base.XPComment] = json.dumps(others, ensure_ascii=False).encode("utf-16-le")
    return exif


def _unpacked(text: str) -> str:
    if not text.startswith(_PACKED):
        return text
    try:
        content = zlib.decompressobj().decompress(
            base64.b64decode(text.removeprefix(_PACKED)), LONGEST_TEXT
        )
        return content.decode(errors="replace")
    except (ValueError, zlib.error):
        return text


def _from_exif(exif: Image.Exif) -> dict[str, str]:
    texts: dict[str, str] = {}
    others = exif.get(ExifTags.Base.XPComment)
    if isinstance(others, bytes):
        try:
            content = json.loads(others.decode("utf-16-le").rstrip("\0"))
            texts |= {k: _unpacked(v) for k, v in content.items() if isinstance(v, str)}
        except (ValueError, AttributeError, RecursionError):
            pass  # another program's comment
    comment = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
    if isinstance(comment, bytes) and comment.startswith(_UNICODE):
        texts[A1111] = comment[len(_UNICODE) :].decode("utf-16-be", errors="replace")
    return texts
