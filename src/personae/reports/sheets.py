"""Sheets of pictures: margins, a header, and a legible label under each picture, never overlapping.

A contact sheet is one grid; a character sheet has a headed section for each thing it varies.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from personae.core.files import replacing
from personae.errors import UsageError
from personae.evaluation.suite import Suite

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

PAPER, INK, FAINT, LINE = "#fbfaf7", "#22252b", "#6d717a", "#dcd9d1"
MARGIN, GAP = 40, 20  # pixels around the sheet, and between pictures
TITLE, HEADING, LABEL = 34, 21, 15  # font sizes in pixels
LEADING = 1.35  # line height relative to the font size
LABEL_LINES = 2
HEADINGS = {"scene": "Scenes", "expression": "Expressions", "medium": "Media"}
"""What the kinds of shots of a suite are called above their pictures."""
MAX_COLUMNS = 6
SUITE_COLUMNS = 4  # suites have four expressions and four media


@dataclass(frozen=True, slots=True)
class Panel:
    """A picture, what to write under it, and a fainter line below that."""

    image: Image.Image
    label: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """Panels under a heading; without one they follow the header at once."""

    heading: str
    panels: Sequence[Panel]


def contact_sheet(
    panels: Sequence[Panel], title: str = "", subtitle: str = "", *, columns: int | None = None
) -> Image.Image:
    """Return one picture of all `panels` in a grid.

    Raises:
        UsageError: there are no panels.
    """
    return character_sheet([Section("", panels)], title, subtitle, columns=columns)


def character_sheet(
    sections: Sequence[Section],
    title: str = "",
    subtitle: str = "",
    *,
    columns: int | None = None,
    cell: int = 224,
) -> Image.Image:
    """Return one picture of all sections, RGB.

    Args:
        sections: from top to bottom.
        title, subtitle: written at the top, where given.
        columns: pictures side by side; by default nearly square, at most 6.
        cell: side of the square each picture is fitted into, in pixels.

    Raises:
        UsageError: there are no pictures.
    """
    most = max((len(section.panels) for section in sections), default=0)
    if most == 0:
        raise UsageError("a sheet needs at least one picture")
    columns = columns or min(MAX_COLUMNS, max(1, math.ceil(math.sqrt(most))))
    columns = min(columns, most)
    width = 2 * MARGIN + columns * cell + (columns - 1) * GAP
    plan: list[_Words | _Row] = [*_header(title, subtitle, width - 2 * MARGIN)]
    for section in sections:
        plan += _rows(section, columns, cell)
    height = MARGIN + sum(block.height for block in plan) + MARGIN
    page = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(page)
    top = MARGIN
    for block in plan:
        block.paint(page, draw, top)
        top += block.height
    return page


def suite_sheet(
    suite: Suite, images: Sequence[Image.Image], title: str, subtitle: str = ""
) -> Image.Image:
    """Return the pictures of a suite's shots in labelled sections, one for each kind.

    Args:
        suite: whose shots were drawn.
        images: one for each shot, in the suite's order.
        title, subtitle: written at the top.
    """
    rows = zip(suite.shots, images, strict=True)
    sections = [
        Section(
            HEADINGS.get(kind, kind),
            [Panel(image, shot.id.replace("_", " ")) for shot, image in group],
        )
        for kind, group in groupby(rows, key=lambda row: row[0].kind)
    ]
    return character_sheet(sections, title, subtitle, columns=SUITE_COLUMNS)


def save_sheet(sheet: Image.Image, path: Path) -> Path:
    """Write a sheet as PNG, atomically, and return its path."""
    with replacing(path) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)
    return path


@dataclass(frozen=True, slots=True)
class _Words:
    """Lines of text across the sheet, with space below."""

    lines: Sequence[str]
    size: int
    colour: str
    below: int

    @property
    def height(self) -> int:
        return len(self.lines) * _line_height(self.size) + self.below

    def paint(self, page: Image.Image, draw: ImageDraw.ImageDraw, top: int) -> None:
        for number, line in enumerate(self.lines):
            place = (MARGIN, top + number * _line_height(self.size))
            draw.text(place, line, font=_font(self.size), fill=self.colour)


@dataclass(frozen=True, slots=True)
class _Row:
    """Pictures side by side with their labels, all rows of a sheet on one grid."""

    panels: Sequence[Panel]
    cell: int

    @property
    def picture_height(self) -> int:
        return max(_fitted(panel.image, self.cell)[1] for panel in self.panels)

    @property
    def labels(self) -> list[list[tuple[str, str]]]:
        """Return the (line, colour) pairs under each picture."""
        return [
            [(line, INK) for line in wrapped(panel.label, LABEL, self.cell, LABEL_LINES)]
            + [(line, FAINT) for line in wrapped(panel.note, LABEL, self.cell, 1)]
            for panel in self.panels
        ]

    @property
    def height(self) -> int:
        lines = max(len(label) for label in self.labels)
        return self.picture_height + 8 + lines * _line_height(LABEL) + GAP

    def paint(self, page: Image.Image, draw: ImageDraw.ImageDraw, top: int) -> None:
        below = top + self.picture_height
        for column, (panel, lines) in enumerate(zip(self.panels, self.labels, strict=True)):
            left = MARGIN + column * (self.cell + GAP)
            width, height = _fitted(panel.image, self.cell)
            x, y = left + (self.cell - width) // 2, below - height
            picture = panel.image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
            page.paste(picture, (x, y))
            draw.rectangle((x - 1, y - 1, x + width, y + height), outline=LINE)
            for number, (line, colour) in enumerate(lines):
                place = (left, below + 8 + number * _line_height(LABEL))
                draw.text(place, line, font=_font(LABEL), fill=colour)


def _header(title: str, subtitle: str, width: int) -> Iterator[_Words]:
    if title:
        yield _Words(wrapped(title, TITLE, width, 2), TITLE, INK, 4 if subtitle else 24)
    if subtitle:
        yield _Words(wrapped(subtitle, LABEL, width, 3), LABEL, FAINT, 24)


def _rows(section: Section, columns: int, cell: int) -> Iterator[_Words | _Row]:
    if section.heading and section.panels:
        width = columns * cell + (columns - 1) * GAP
        yield _Words(wrapped(section.heading, HEADING, width, 1), HEADING, INK, 10)
    for start in range(0, len(section.panels), columns):
        yield _Row(section.panels[start : start + columns], cell)


def wrapped(text: str, size: int, width: int, most: int) -> list[str]:
    """Return `text` in at most `most` lines of `width` pixels; what is left out ends in "…"."""
    font = _font(size)
    lines: list[str] = []
    words = text.split()
    while words and len(lines) < most:
        line = words.pop(0)
        while words and font.getlength(f"{line} {words[0]}") <= width:
            line = f"{line} {words.pop(0)}"
        lines.append(_cut(line, font, width))
    if words:
        lines[-1] = _cut(lines[-1] + " " + words[0] + "…", font, width)
    return lines


def _cut(line: str, font: Font, width: int) -> str:
    if font.getlength(line) <= width:
        return line
    line = line.rstrip("…")
    while line and font.getlength(line + "…") > width:
        line = line[:-1]
    return line.rstrip() + "…"


def _fitted(image: Image.Image, cell: int) -> tuple[int, int]:
    """Return (width, height) of `image` scaled to fit a square of `cell` pixels."""
    return ImageOps.contain(Image.new("1", image.size), (cell, cell)).size


def _line_height(size: int) -> int:
    return round(size * LEADING)


@cache
def _font(size: int) -> Font:
    return ImageFont.load_default(size=size)
