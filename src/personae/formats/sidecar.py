"""What A1111 and InvokeAI show beside a file: `<stem>.json`, and a picture `<stem>.preview.png`."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from personae.artifacts.artifact import Artifact
from personae.core.files import replacing, write_text
from personae.errors import UsageError
from personae.formats.layout import layout_of
from personae.models.family import Family

VERSIONS = {"sd1": "SD1", "sd2": "SD2", "sdxl": "SDXL"}
LONGEST_SIDE = 512


def sidecar_paths(path: Path) -> tuple[Path, Path]:
    """Return where the words and the picture beside `path` lie."""
    return path.with_suffix(".json"), path.with_suffix(".preview.png")


def open_preview(path: Path) -> Image.Image:
    """Return a picture to show, at most `LONGEST_SIDE` pixels on its longer side.

    Raises:
        UsageError: it is not there or no picture.
    """
    try:
        with Image.open(path) as image:
            shown = image.convert("RGB")
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file; check the path") from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise UsageError(f"{path}: is not a readable picture ({error})") from None
    except Image.DecompressionBombError:
        raise UsageError(f"{path}: is larger than a picture may be") from None
    shown.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return shown


def write_sidecar(
    artifact: Artifact, path: Path, base: Family, preview: Image.Image | None = None
) -> None:
    """Write what A1111's card of a file says: activation text, weight, version and description."""
    words, picture = sidecar_paths(path)
    character, training = artifact.card.character, artifact.card.training
    about = (
        f"{character.name}, a {character.class_noun}" if character.class_noun else character.name
    )
    taught = f"{training.steps} steps on {training.pictures} pictures"
    content = {
        "description": about,
        "sd version": VERSIONS[layout_of(base).kind],
        "activation text": character.phrase,
        "preferred weight": 1.0,
        "negative text": "",
        "notes": f"for base {artifact.card.base.source}; {taught}" if training.steps else "",
    }
    write_text(words, json.dumps(content, indent=2, ensure_ascii=False))
    if preview is not None:
        with replacing(picture) as temporary:
            preview.save(temporary, format="PNG")
