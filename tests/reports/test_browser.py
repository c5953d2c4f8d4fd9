"""The report in a real browser: everything is drawn, enlarging works, nothing is fetched."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest

from personae.reports.study_report import write_report
from personae.study.comparison.limits import Limits
from study_world import finished

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason=f"no browser is installed; one of {', '.join(BROWSERS)} is needed"
)

# Runs in the page once it is loaded, and leaves what it saw in the document.
PROBE = """
<script>
const refused = [];
addEventListener("securitypolicyviolation", (event) => refused.push(event.blockedURI));
addEventListener("load", async () => {
  document.querySelectorAll("details").forEach((part) => { part.open = true; });
  const images = [...document.querySelectorAll("main img")];
  images.forEach((image) => { image.loading = "eager"; });
  await Promise.all(images.map((image) => image.decode()));
  const pictures = document.querySelectorAll("button.picture");
  pictures[1].click();
  const viewer = document.getElementById("viewer");
  const press = (key) => viewer.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
  const first = viewer.querySelector("strong").textContent;
  press("ArrowRight");
  const seen = {
    drawn: images.filter((image) => image.naturalWidth > 0).length,
    images: images.length,
    plots: [...document.querySelectorAll("svg")].filter((plot) => plot.clientWidth > 100).length,
    cells: document.querySelectorAll("#numbers td").length,
    open: viewer.open,
    titles: [first, viewer.querySelector("strong").textContent],
    detail: viewer.querySelector("small").textContent,
    wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  };
  const fetched = performance.getEntriesByType("resource").map((entry) => entry.name);
  seen.requests = [...refused, ...fetched.filter((name) => !name.startsWith("data:"))];
  const blocked = new Promise((done) => addEventListener("securitypolicyviolation", done));
  new Image().src = "http://127.0.0.1:9/outside.png";  // would it have been noticed?
  seen.outside = (await blocked).blockedURI;
  document.body.dataset.seen = JSON.stringify(seen);
});</script>
"""


@pytest.fixture(scope="module")
def seen(character, tmp_path_factory):
    """Open a report at the width of a phone; return what the page saw."""
    folder = tmp_path_factory.mktemp("page")
    findings = {"lora": {"likeness": 0.7}, "dreambooth": {"likeness": 0.6}, "untouched": {}}
    grid = {"character": str(character), "technique": ["lora", "dreambooth"]}
    report = write_report(finished(folder, grid, findings), Limits.parse(None))
    page = folder / "probed.html"
    text = report.page.read_text(encoding="utf-8")
    page.write_text(text.replace("</body>", PROBE + "</body>"), encoding="utf-8")
    ran = subprocess.run(
        [
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            f"--user-data-dir={folder / 'profile'}",
            "--window-size=500,900",
            "--virtual-time-budget=20000",
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = re.search(r'data-seen="([^"]*)"', ran.stdout)
    assert found, "the page's probe did not run to its end"
    return json.loads(found[1].replace("&quot;", '"'))


def test_every_picture_plot_and_number_is_there(seen):
    assert seen["images"] == seen["drawn"] > 10
    assert seen["plots"] >= 8
    assert seen["cells"] > 20


def test_a_picture_is_enlarged_with_its_recipe_and_arrows_go_on(seen):
    assert seen["open"]
    assert seen["titles"][0] != seen["titles"][1]
    assert "seed 1001" in seen["detail"]


def test_the_page_is_no_wider_than_a_phone(seen):
    assert seen["wide"] <= 0


def test_no_request_leaves_the_file_and_one_would_be_stopped(seen):
    assert seen["requests"] == []
    assert seen["outside"].startswith("http://127.0.0.1:9")
