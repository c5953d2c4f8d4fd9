"""The pictures of a report, inside the page: same prompt and seed side by side."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from personae.study.comparison.comparison import Comparison
from personae.study.comparison.rows import Found, Row
from personae.study.result import CellPicture

SIDE = 512
"""Longest side of an embedded picture in pixels; larger ones are made smaller."""
QUALITY = 90


@dataclass(frozen=True, slots=True)
class ShownPicture:
    """A picture on the page: where it comes from and how it was drawn."""

    source: str
    title: str
    prompt: str
    detail: str


@dataclass(frozen=True, slots=True)
class Line:
    """One prompt and what each row drew for it; None where it drew nothing."""

    prompt: str
    shown: list[ShownPicture | None]


@dataclass(frozen=True, slots=True)
class CharacterPictures:
    """All that is shown of one character."""

    name: str
    class_noun: str
    real: list[ShownPicture]
    columns: list[str]
    lines: list[Line]
    class_lines: list[Line]


def characters(comparison: Comparison) -> list[CharacterPictures]:
    """Return the pictures of each character: the first seed of each row, in one order."""
    return [_character(comparison, name) for name in comparison.characters]


def _character(comparison: Comparison, name: str) -> CharacterPictures:
    drawn = [row for row in comparison.rows if row.kind != "real"]
    ordered = [row for row in drawn if row.kind == "untouched"]
    ordered += [row for row in drawn if row.kind == "trained"]
    found = [_first(row, name) for row in ordered]
    titles = [row.title for row in ordered]
    real = [row for row in comparison.rows if row.kind == "real"]
    return CharacterPictures(
        name=name,
        class_noun=next(each.result.character.class_noun for each in found if each),
        real=[shown for row in real for shown in _real(_first(row, name))],
        columns=titles,
        lines=_lines(found, titles, of_class=False),
        class_lines=_lines(found, titles, of_class=True),
    )


def _first(row: Row, character: str) -> Found | None:
    mine = [each for each in row.found if each.character == character]
    return min(mine, key=lambda each: each.seed, default=None)


def _real(found: Found | None) -> list[ShownPicture]:
    if found is None:
        return []
    return [
        ShownPicture(
            embed(found.cell.pictures / each.file), "held-out picture", "", "never trained on"
        )
        for each in found.result.pictures
    ]


def _lines(found: list[Found | None], titles: list[str], *, of_class: bool) -> list[Line]:
    """Return one line per shot, its first seed."""
    by_row = [_by_shot(each, of_class) if each else {} for each in found]
    shots = dict.fromkeys(shot for pictures in by_row for shot in pictures)
    lines = []
    for shot in shots:
        shown = [
            _shown(each, pictures[shot], title, of_class) if each and shot in pictures else None
            for each, pictures, title in zip(found, by_row, titles, strict=True)
        ]
        prompt = next(pictures[shot].prompt for pictures in by_row if shot in pictures)
        lines.append(Line(prompt, shown))
    return lines


def _by_shot(found: Found, of_class: bool) -> dict[str, CellPicture]:
    shots: dict[str, CellPicture] = {}
    for picture in found.result.class_pictures if of_class else found.result.pictures:
        shots.setdefault(picture.shot, picture)
    return shots


def _shown(found: Found, picture: CellPicture, title: str, of_class: bool) -> ShownPicture:
    recipe, result = found.result.recipe, found.result
    detail = (
        f"seed {picture.seed} · {recipe.sampler}, {recipe.steps} steps, "
        f"guidance {recipe.guidance_scale:g} · base {result.base.fingerprint}"
    )
    if result.training:
        steps, seed = result.training.steps, found.seed
        detail += f" · {result.content_hash[:12]}, {steps} steps, training seed {seed}"
    file = found.cell.pictures / ("class" if of_class else "") / picture.file
    detail += f" · {file.relative_to(found.cell.folder.parent)}"
    return ShownPicture(embed(file), title, picture.prompt, detail)


def embed(path: Path) -> str:
    """Return a picture as a data URI, so that the page needs no other file."""
    with Image.open(path) as image:
        small = image.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
