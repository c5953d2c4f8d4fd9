"""The report's files: complete, self-contained, and safe with whatever a prompt holds."""

from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from personae.reports.plots import pareto
from personae.reports.study_report import write_report
from personae.study.comparison.comparison import Comparison
from personae.study.comparison.limits import Limits
from personae.study.comparison.rows import Row
from study_world import finished

FINDINGS = {
    "lora": {"likeness": 0.7, "agreement": 0.3, "second": 0.55, "following": 0.9},
    "dreambooth": {
        **{"likeness": 0.75, "agreement": 0.2, "second": 0.5, "following": 0.5},
        "file_bytes": 47_000_000,
    },
    "untouched": {"likeness": 0.3, "agreement": 0.3, "second": 0.2, "following": 1.0},
    "real": {"likeness": 0.8},
}


@pytest.fixture(scope="module")
def written(character, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    grid = {"character": str(character), "technique": ["lora", "dreambooth"]}
    study = finished(folder, grid, FINDINGS)
    return study, write_report(study, Limits.parse("memory=8GiB"))


class Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def test_the_page_needs_nothing_but_itself(written):
    page = written[1].page.read_text(encoding="utf-8")
    tags = Tags(page)
    sources = [image["src"] for image in tags.all("img") if image.get("src")]
    assert sources
    assert all(source.startswith("data:image/webp;base64,") for source in sources)
    assert not [link for link in tags.all("a") if not link["href"].startswith("#")]
    assert not tags.all("link")
    assert not [script for script in tags.all("script") if "src" in script]
    names = re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)
    assert not re.search(r"url\((?!#)|@import|https?://", names)
    policy = next(meta for meta in tags.all("meta") if "http-equiv" in meta)
    assert "default-src 'none'" in policy["content"]


def test_the_page_shows_verdict_pictures_numbers_plots_and_claims(written):
    page = written[1].page.read_text(encoding="utf-8")
    tags = Tags(page)
    assert written[1].verdict.headline in page
    # four shots and two class shots by base, LoRA and DreamBooth; the held-out pictures besides
    matrix = [b for b in tags.all("button") if b.get("class") == "picture"]
    assert len([b for b in matrix if b["data-prompt"]]) == 4 * 3 + 1 * 3
    assert len(tags.all("svg")) >= 8
    assert all(plot["aria-label"] for plot in tags.all("svg"))
    assert "DreamBooth reaches the highest fidelity." in page
    assert "47 MB" in page


def test_the_page_explains_what_decides_and_shows_both_encoders(written):
    page = written[1].page.read_text(encoding="utf-8")
    for words in (
        "likeness, first encoder",
        "likeness, second encoder",
        "agreement with the prompt",
        "Whether the prompt acts: 0% is a picture that suits any other prompt as well",
        "Plain values, to compare with papers",
    ):
        assert words in page, words
    result = json.loads(written[1].result.read_text(encoding="utf-8"))
    assert {"balance", "likeness_share_second"} <= set(result["smallest_visible"])


def test_each_picture_comes_with_its_recipe(written):
    buttons = Tags(written[1].page.read_text(encoding="utf-8")).all("button")
    trained = [b for b in buttons if b.get("data-title") == "LoRA"]
    assert trained
    assert all("seed 1001" in b["data-detail"] for b in trained)
    assert all("ddim, 4 steps" in b["data-detail"] for b in trained)


def test_the_same_results_give_the_same_page(written, tmp_path):
    study, report = written
    again = write_report(study, Limits.parse("memory=8GiB"), tmp_path)
    assert again.page.read_bytes() == report.page.read_bytes()
    assert again.result.read_bytes() == report.result.read_bytes()


def test_result_and_table_hold_the_numbers(written):
    study, report = written
    result = json.loads(report.result.read_text(encoding="utf-8"))
    lora = next(row for row in result["rows"] if row["name"] == "lora")
    mean = Comparison.of(study).row("lora").mean("likeness")
    assert lora["measures"]["likeness"]["mean"] == pytest.approx(mean)
    assert result["verdict"]["choice"] == report.verdict.choice
    with report.csv.open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    cell = next(x for x in lines if (x["row"], x["measure"]) == ("lora", "likeness"))
    assert float(cell["mean"]) == pytest.approx(mean, rel=1e-5)
    assert cell["better"] == "higher"
    assert result["claims"]


def test_the_summary_is_a_picture(written):
    with Image.open(written[1].png) as image:
        assert image.width > 1000
        assert len(set(image.convert("RGB").resize((64, 64)).getdata())) > 10


def test_what_a_prompt_or_an_error_holds_is_text_and_not_markup(character, tmp_path):
    grid = {"character": str(character), "technique": ["lora", "dreambooth"]}
    study = finished(tmp_path, grid, {"lora": {}})
    evil = '<script>alert("x")</script>'
    cell = next(c for c in study.cells if c.spec.row == "lora")
    stored = json.loads(cell.result_file.read_text(encoding="utf-8"))
    stored["pictures"][0]["prompt"] = evil
    cell.result_file.write_text(json.dumps(stored), encoding="utf-8")
    next(c for c in study.cells if c.spec.row == "dreambooth").fail(f"broke at {evil}")
    page = write_report(study, Limits.parse(None)).page.read_text(encoding="utf-8")
    assert evil not in page
    assert "&lt;script&gt;alert" in page


def test_a_report_can_be_written_while_cells_are_pending_or_failed(character, tmp_path):
    grid = {"character": str(character), "technique": ["lora", "dreambooth"]}
    study = finished(tmp_path, grid, {"lora": {}})
    next(c for c in study.cells if c.spec.row == "dreambooth").fail("killed by SIGKILL")
    page = write_report(study, Limits.parse(None)).page.read_text(encoding="utf-8")
    assert "3 cells without a usable result" in page
    assert "killed by SIGKILL" in page


def test_the_front_holds_those_that_nobody_beats_in_both_numbers():
    a, b, c, d = (Row(name, name, "trained", []) for name in "abcd")
    points = [(a, 1.0, 0.9), (b, 2.0, 0.95), (c, 2.0, 0.8), (d, 1.0, 0.9)]
    assert pareto(points, higher=False) == [a, b, d]
    assert pareto(points, higher=True) == [b]


def test_a_page_is_written_to_another_folder_when_asked(written, tmp_path: Path):
    study, _ = written
    report = write_report(study, Limits.parse(None), tmp_path / "elsewhere")
    assert report.page == tmp_path / "elsewhere" / "report.html"
    assert report.page.is_file()


def test_what_the_monitor_warned_of_stands_by_the_verdict_and_by_the_pictures(character, tmp_path):
    message = "ignoring prompts: of the scenes asked for, 25% act; use a lower learning rate"
    warned = {"warnings": [{"step": 150, "message": message}]}
    grid = {"character": str(character), "technique": ["lora", "dreambooth"], "seed": [0, 1]}
    findings = FINDINGS | {"dreambooth": FINDINGS["dreambooth"] | warned}
    report = write_report(finished(tmp_path, grid, findings), Limits.parse(None))
    caution = (
        f"DreamBooth was warned (2 of 2 trainings): mira, training seed 0, step 150: {message}."
    )
    assert caution in report.verdict.cautions
    page = report.page.read_text(encoding="utf-8")
    assert caution in page
    for seed in (0, 1):
        assert f"⚠ DreamBooth, training seed {seed}, step 150: {message}." in page
    assert "⚠ LoRA" not in page
