"""The page of a trained character: self-contained, escaped, and its curve drawn to scale."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from personae.reports.html_page import (
    Curve,
    Gallery,
    Page,
    Shown,
    draw_curve,
    in_words,
    render,
    smoothed,
)

LOSSES = [(step, 1.0 - step / 200) for step in range(1, 101)]


def page(**changes: object) -> Page:
    picture = Shown(Image.new("RGB", (8, 6)), "<b>at the beach</b>", 'a "cat"')
    values = {
        "title": "mira & juno",
        "lead": "Two <characters>.",
        "galleries": [Gallery("Scenes", "All of them.", [picture] * 3)],
        "curve": Curve(LOSSES, [(50, 0.8), (100, 0.7)], 0.9),
        "facts": {"base": "toon"},
        "commands": ["personae generate"],
    }
    return Page(**{**values, **changes})


class Tags(HTMLParser):
    """Checks that every tag is closed in order."""

    VOID = {"meta", "img", "br"}

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_page_is_well_formed_and_shows_text_as_it_was_given() -> None:
    tags = Tags()
    tags.feed(render(page()))
    assert tags.open == []
    assert {"mira & juno", "Two <characters>.", "<b>at the beach</b>"} <= set(tags.texts)


def test_the_page_fetches_and_runs_nothing() -> None:
    html = render(page())
    sources = re.findall(r'\b(?:src|href|url)\s*[=(]\s*"?([^")\s]+)', html)
    assert len(sources) == 3
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "<script" not in html
    assert "@import" not in html


def test_every_picture_has_an_alternative_text_and_its_size() -> None:
    images = re.findall(r"<img [^>]*>", render(page()))
    assert len(images) == 3
    for image in images:
        assert 'alt="a &quot;cat&quot;"' in image
        assert 'width="8" height="6"' in image


def test_what_there_is_nothing_to_say_about_is_left_out() -> None:
    html = render(page(galleries=[], curve=Curve([(1, 1.0)]), facts={}, commands=[]))
    assert "<svg" not in html
    assert "<table" not in html
    assert "<pre" not in html


def test_the_curve_spans_its_frame() -> None:
    svg = draw_curve(Curve(LOSSES))
    points = re.findall(r'points="([^"]*)"', svg)[0].split()
    places = [tuple(map(float, point.split(","))) for point in points]
    assert places[-1][0] == max(x for x, _ in places) == 630
    assert places[0][1] == min(y for _, y in places) == 12  # the highest loss at the top
    assert places[-1][1] == 192  # the lowest at the bottom


def test_a_flat_loss_is_drawn_without_dividing_by_zero() -> None:
    assert "nan" not in draw_curve(Curve([(1, 0.5), (2, 0.5)]))


def test_the_words_say_which_way_the_loss_on_held_out_pictures_went() -> None:
    assert "22.2% below" in in_words(Curve(LOSSES, [(100, 0.7)], 0.9))
    assert "22.2% above" in in_words(Curve(LOSSES, [(100, 1.1)], 0.9))


def test_smoothing_keeps_a_constant_and_weighs_the_start_fairly() -> None:
    assert [loss for _, loss in smoothed([(1, 2.0), (2, 2.0)])] == pytest.approx([2.0, 2.0])
    # (0.9 * 0.1 * 4 + 0.1 * 1) / (0.9 * 0.1 + 0.1)
    assert smoothed([(1, 4.0), (2, 1.0)])[1][1] == pytest.approx(0.46 / 0.19)
