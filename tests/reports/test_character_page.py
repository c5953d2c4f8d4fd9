"""The page of a trained character: self-contained, escaped, complete."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from personae.artifacts.card import read_card
from personae.characters.character import Character
from personae.core.units import size
from personae.evaluation.suite import Suite
from personae.reports.character_page import character_page
from personae.training.events import MonitorNote, Step, Validation
from personae.training.run_folder import RunFolder
from tiny_world import artifact_of, bases, make, paint, stir

SUITE = Suite.parse(
    {
        "name": "two",
        "shots": [
            {"id": "at_sea", "kind": "scene", "prompt": "a {character} at <b>sea</b>"},
            {"id": "asleep", "kind": "expression", "prompt": "a {character} asleep"},
        ],
    }
)
EVENTS = [*(Step(i, 9, 1 - i / 20, 1e-3, 1.0, 0.1) for i in range(1, 10)), Validation(9, 0.7, 0.9)]


class Tags(HTMLParser):
    """Checks that every tag of HTML is closed in order, and keeps what stands between them."""

    VOID = {"meta", "img", "br"}

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the pictures of a character and a run that learnt it."""
    folder = tmp_path_factory.mktemp("page")
    paint(folder / "mira")
    run = folder / "run"
    run.mkdir()
    base = next(iter(bases().values()))
    artifact_of(stir(make("lora", base, rank=2)), base).save(run / "mira.lora.safetensors")
    return folder


def page_of(folder: Path, events=(), commands=("personae generate '<b>'",)) -> str:
    artifact = folder / "run" / "mira.lora.safetensors"
    run = RunFolder(folder / "run")
    (run.path / "events.jsonl").unlink(missing_ok=True)
    for event in events:
        run.log(event)
    return character_page(
        Character.open(folder / "mira"),
        read_card(artifact),
        artifact,
        SUITE,
        drawn=[Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")],
        untouched=[Image.new("RGB", (600, 300), "grey")],
        commands=commands,
    )


def test_the_page_is_well_formed_and_shows_text_as_it_was_given(folder: Path) -> None:
    tags = Tags(page_of(folder, EVENTS))
    assert tags.open == []
    assert {"personae generate '<b>'", "at sea", "asleep", "Learning"} <= set(tags.texts)
    assert size((folder / "run" / "mira.lora.safetensors").stat().st_size) in " ".join(tags.texts)


def test_the_page_fetches_nothing_and_may_not(folder: Path) -> None:
    page = page_of(folder, EVENTS)
    outside = re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)
    sources = re.findall(r'<img [^>]*src="([^"]*)"', page)
    assert len(sources) == len(Character.open(folder / "mira").references) + 2 + 1
    assert all(source.startswith("data:image/webp;base64,") for source in sources)
    assert not re.search(r"url\((?!#)|@import|https?://", outside)
    assert "default-src 'none'" in page


def test_every_picture_has_an_alternative_text_its_prompt_and_its_size(folder: Path) -> None:
    images = re.findall(r"<img [^>]*src[^>]*>", page_of(folder))
    assert all(re.search(r'alt="[^"]+"', image) for image in images)
    assert 'alt="at sea: a {mira} at &lt;b&gt;sea&lt;/b&gt;"' in images[-3]
    assert 'width="8" height="6"' in images[-3]
    assert 'width="512" height="256"' in images[-1]  # larger ones are made smaller


def test_what_there_is_nothing_to_say_about_is_left_out(folder: Path) -> None:
    page = page_of(folder, EVENTS[:1], commands=())
    assert "<svg" not in page
    assert "<pre" not in page
    assert 'href="#learning"' not in page
    assert 'href="#medium"' not in page


def test_the_links_lead_to_the_sections(folder: Path) -> None:
    page = page_of(folder, EVENTS)
    links = re.findall(r'<a href="#([^"]*)"', page)
    assert len(links) == len(set(links)) >= 6
    assert set(links) == set(re.findall(r'<section id="([^"]*)"', page))


def test_what_the_monitor_warned_of_is_said_and_what_passed_is_not(folder: Path) -> None:
    message = "ignoring prompts: <b>; use a lower learning rate, such as 2.0e-02"
    warned = MonitorNote(50, "warning", message, 0.1, 0.2, 0.25)
    tags = Tags(page_of(folder, [*EVENTS, warned]))
    assert f"⚠ Step 50: {message}." in tags.texts
    passed = page_of(folder, [*EVENTS, warned, MonitorNote(300, "note", "learning", 0.1, 0.2, 1)])
    assert "⚠" not in passed
