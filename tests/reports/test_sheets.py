"""Sheets: margins stay free, pictures keep their shape, labels stay under their picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from personae.errors import UsageError
from personae.reports.sheets import (
    LABEL,
    MARGIN,
    PAPER,
    Panel,
    Section,
    _font,
    character_sheet,
    contact_sheet,
    save_sheet,
    wrapped,
)

RED, BLUE = (250, 10, 10), (10, 10, 250)


def panel(colour: tuple[int, int, int], size: tuple[int, int] = (64, 64), label: str = "") -> Panel:
    return Panel(Image.new("RGB", size, colour), label)


def box(sheet: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Return (left, top, right, bottom) of what has a colour."""
    rows, columns = np.where((np.asarray(sheet) == colour).all(axis=2))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def test_margins_are_free_even_with_long_words() -> None:
    label = "an uncommonly long label with averylongwordthatfitsnowhereatallinanycell " * 3
    sheet = contact_sheet([panel(RED, label=label)] * 5, title=label, subtitle=label * 3)
    paper = ImageColor.getrgb(PAPER)
    pixels = np.asarray(sheet)
    inside = pixels[MARGIN - 1 : -MARGIN + 1, MARGIN - 1 : -MARGIN + 1]
    frame = pixels.size // 3 - inside.size // 3
    outside = (pixels == paper).all(axis=2).sum() - (inside == paper).all(axis=2).sum()
    assert outside == frame


def test_pictures_keep_their_shape_and_share_a_cell_size() -> None:
    sheet = contact_sheet([panel(RED, (64, 32)), panel(BLUE, (32, 64))], columns=2)
    left, top, right, bottom = box(sheet, RED)
    assert ((right - left), (bottom - top)) == (224, 112)
    left, top, right, bottom = box(sheet, BLUE)
    assert ((right - left), (bottom - top)) == (112, 224)


def test_what_is_written_lies_between_the_rows() -> None:
    label = "two lines of words, more than fit on one"
    sheet = contact_sheet([panel(RED, label=label), panel(BLUE)], columns=1)
    _, _, _, red_bottom = box(sheet, RED)
    _, blue_top, _, _ = box(sheet, BLUE)
    between = np.asarray(sheet.convert("L"))[red_bottom + 2 : blue_top - 2]
    written = np.where((between < 200).any(axis=1))[0]
    assert len(wrapped(label, LABEL, 224, 2)) == 2
    assert written.min() > 2
    assert written.max() < len(between) - 2


def test_lines_fit_their_width_and_say_when_something_is_left_out() -> None:
    text = "the quick brown fox jumps over the lazy dog again and again"
    for width in (60, 100, 200, 1000):
        lines = wrapped(text, LABEL, width, 2)
        assert len(lines) <= 2
        assert all(_font(LABEL).getlength(line) <= width for line in lines)
        shown = " ".join(lines)
        assert shown == text or shown.endswith("…")


def test_sections_follow_one_another_on_one_grid() -> None:
    sections = [Section("Scenes", [panel(RED)] * 3), Section("Media", [panel(BLUE)] * 2)]
    sheet = character_sheet(sections, "mira", "a woman", columns=2)
    red, blue = box(sheet, RED), box(sheet, BLUE)
    assert red[3] < blue[1]
    assert (red[0], red[2]) == (blue[0], blue[2]) == (MARGIN, sheet.width - MARGIN)


def test_a_sheet_without_pictures_is_refused() -> None:
    with pytest.raises(UsageError, match="at least one picture"):
        contact_sheet([])


def test_a_saved_sheet_is_the_same_picture(tmp_path: Path) -> None:
    sheet = contact_sheet([panel(RED, label="red")])
    with Image.open(save_sheet(sheet, tmp_path / "new" / "sheet.png")) as read:
        assert read.tobytes() == sheet.tobytes()
