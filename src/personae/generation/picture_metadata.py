"""Settings inside pictures: ours and those of other tools, in PNG, JPEG and WebP.

PNG keeps them in text chunks, JPEG and WebP in EXIF.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo
from pydantic import ValidationError

from personae.core.files import replacing
from personae.errors import UsageError
from personae.generation.infotext import (
    LONGEST_TEXT,
    Settings,
    from_infotext,
    from_invokeai,
    to_infotext,
    to_invokeai,
)
from personae.generation.picture import CHUNK, Picture
from personae.generation.recipe import Recipe

A1111 = "parameters"
INVOKEAI = "invokeai_metadata"

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_QUALITY = 95
_UNICODE = b"UNICODE\0"


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
            picture.image.save(temporary, format=kind, quality=_QUALITY, exif=_exif(texts))
    return path


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


def _from_exif(exif: Image.Exif) -> dict[str, str]:
    texts: dict[str, str] = {}
    others = exif.get(ExifTags.Base.XPComment)
    if isinstance(others, bytes):
        try:
            content = json.loads(others.decode("utf-16-le").rstrip("\0"))
            texts |= {k: v for k, v in content.items() if isinstance(v, str)}
        except (ValueError, AttributeError, RecursionError):
            pass  # another program's comment
    comment = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
    if isinstance(comment, bytes) and comment.startswith(_UNICODE):
        texts[A1111] = comment[len(_UNICODE) :].decode("utf-16-be", errors="replace")
    return texts
