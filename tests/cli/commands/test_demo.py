"""`personae demo`: the whole way, at toy size, twice."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from personae.study.presets import every_technique


def test_the_demo_ends_with_a_page_that_needs_nothing_else(
    character: Path, base_folder: Path, here: Path, told: Callable[..., Any]
) -> None:
    shots = [
        f'[[shots]]\nid = "{name}"\nkind = "{kind}"\nprompt = "a {{character}} {name}"\n'
        for name, kind in (("outside", "scene"), ("asleep", "expression"))
    ]
    (here / "two.toml").write_text('name = "two"\n' + "".join(shots))
    chosen = ("--character", character, "--base", base_folder, "--suite", "two.toml")
    options = ("demo", *chosen, "--steps", 2, "--compare-steps", 0)
    told_ = told(*options)
    assert told_[-1] == {"event": "page", "path": "demo/index.html"}
    page = (here / "demo" / "index.html").read_text(encoding="utf-8")
    sources = re.findall(r'src="([^"]*)"', page)
    assert len(sources) == 5 + 2 + 1  # learnt from, drawn, the scene without the character
    assert all(source.startswith("data:image/webp;base64,") for source in sources)
    assert all(link.startswith("#") for link in re.findall(r'href="([^"]*)"', page))
    assert "mira, learnt from 5 pictures" in page
    assert (here / "demo" / "mira-sheet.png").is_file()

    again = told(*options)
    assert again[-1]["event"] == "page"
    assert not any(line["event"] == "step" for line in again)


def test_the_demo_of_the_embedded_base_ends_with_the_comparison(
    character: Path, here: Path, told: Callable[..., Any]
) -> None:
    (here / "two.toml").write_text(
        'name = "two"\n'
        '[[shots]]\nid = "sea"\nkind = "scene"\nprompt = "a {character} at the beach"\n'
        '[[shots]]\nid = "snow"\nkind = "scene"\nprompt = "a {character} in the snow"\n'
        '[[class_shots]]\nid = "city"\nprompt = "a {class} in a city"\n'
    )
    options = ("--character", character, "--suite", "two.toml", "--steps", 1, "--compare-steps", 1)
    *_, report = told("demo", *options)
    assert report["event"] == "report"
    assert report["page"] == "demo/comparison/report.html"
    result = json.loads((here / report["result"]).read_text(encoding="utf-8"))
    assert (
        len(result["rows"]) == len(every_technique()) + 2
    )  # the untouched base, the real pictures
