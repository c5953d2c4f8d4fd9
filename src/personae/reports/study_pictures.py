"""The pictures of a study: same prompt and seed side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from personae.reports.embedded_picture import ShownPicture, open_picture, shown
from personae.study.comparison.comparison import Comparison
from personae.study.comparison.rows import FinishedCell, Row
from personae.study.result import CellPicture, CellSampling


@dataclass(frozen=True, slots=True)
class Line:
    """One prompt and what each row drew for it; None where it drew nothing."""

    prompt: str
    shown: list[ShownPicture | None]


@dataclass(frozen=True, slots=True)
class CharacterPictures:
    """All that is shown of one character; `warnings` are those of its trainings."""

    name: str
    class_noun: str
    warnings: list[str]
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
        warnings=[
            told for row in ordered for each in row.cells for told in _warned(row, each, name)
        ],
        real=[each for row in real for each in _real(_first(row, name))],
        columns=titles,
        lines=_lines(found, titles, of_class=False),
        class_lines=_lines(found, titles, of_class=True),
    )


def _warned(row: Row, found: FinishedCell, character: str) -> list[str]:
    """Return what the learning monitor warned of in a cell, if it is about `character`."""
    return [
        f"{row.title}, training seed {found.seed}, step {each.step}: {each.message}."
        for each in found.warnings
        if found.character == character
    ]


def _first(row: Row, character: str) -> FinishedCell | None:
    mine = [each for each in row.cells if each.character == character]
    return min(mine, key=lambda each: each.seed, default=None)


def _real(found: FinishedCell | None) -> list[ShownPicture]:
    if found is None:
        return []
    images = [open_picture(found.cell.pictures / each.file) for each in found.result.pictures]
    return [shown(image, "held-out picture", "", "never trained on") for image in images if image]


def _lines(found: list[FinishedCell | None], titles: list[str], *, of_class: bool) -> list[Line]:
    """Return one line per shot, its first seed."""
    by_row = [_by_shot(each, of_class) if each else {} for each in found]
    shots = dict.fromkeys(shot for pictures in by_row for shot in pictures)
    lines = []
    for shot in shots:
        drawn = [
            _drawn(each, pictures[shot], title, of_class) if each and shot in pictures else None
            for each, pictures, title in zip(found, by_row, titles, strict=True)
        ]
        prompt = next(pictures[shot].prompt for pictures in by_row if shot in pictures)
        lines.append(Line(prompt, drawn))
    return lines


def _by_shot(found: FinishedCell, of_class: bool) -> dict[str, CellPicture]:
    shots: dict[str, CellPicture] = {}
    for picture in found.result.class_pictures if of_class else found.result.pictures:
        shots.setdefault(picture.shot, picture)
    return shots


def _drawn(
    found: FinishedCell, picture: CellPicture, title: str, of_class: bool
) -> ShownPicture | None:
    result = found.result
    recipe = cast(CellSampling, result.recipe)  # of every cell that draws
    detail = (
        f"seed {picture.seed} · {recipe.sampler}, {recipe.steps} steps, "
        f"guidance {recipe.guidance_scale:g} · base {result.base.fingerprint}"
    )
    if result.training:
        steps, seed = result.training.steps, found.seed
        detail += f" · {str(result.content_hash)[:12]}, {steps} steps, training seed {seed}"
    file = found.cell.pictures / ("class" if of_class else "") / picture.file
    detail += f" · {file.relative_to(found.cell.folder.parent)}"
    image = open_picture(file)
    return None if image is None else shown(image, title, picture.prompt, detail)
