"""The report before training: each fault is found, named with advice, and good sets pass."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from personae.characters.checks.finding import Finding, Level, grouped
from personae.characters.checks.inspection import Inspection, inspect_folder
from personae.errors import CharacterError

PLACES = ("beach", "forest", "city", "desert", "kitchen", "library", "castle", "garden")
SKIES = ("#90c0f0", "#204020", "#705090", "#f0d080", "#b04030", "#303030", "#e0e0f0", "#60b0a0")


def scene(number: int, size: int = 160, far: float | None = None) -> Image.Image:
    """Draw a figure of one palette before a background of its own, near or far."""
    picture = Image.new("RGB", (size, size), SKIES[number % len(SKIES)])
    pen = ImageDraw.Draw(picture)
    rng = np.random.default_rng(number)
    for _ in range(6):
        x, y = rng.integers(0, size, 2).tolist()
        pen.rectangle((x, y, x + size // 5, y + size // 8), fill=SKIES[(number + 3) % 8])
    scale = size * (far if far is not None else (0.85, 0.5, 0.3)[number % 3])
    left = float(rng.uniform(0, size - scale))
    top = size - scale
    pen.ellipse((left, top, left + scale, top + scale * 0.7), fill="#ff60ff")
    pen.ellipse((left + scale * 0.3, top + 8, left + scale * 0.45, top + 20), fill="#101010")
    pen.rectangle((left + scale * 0.2, top + scale * 0.6, left + scale * 0.8, size), fill="#00ff40")
    return picture


def good_set(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for number, place in enumerate(PLACES):
        scene(number).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"{{mira}} {('in', 'out', 'by')[number % 3]} {place}")
    (folder / "character.toml").write_text('name = "mira"\nclass_noun = "girl"\n')
    return folder


def codes(report: Inspection, file: str | None = None) -> list[str]:
    return [f.code for f in report.findings if file is None or f.file.name == file]


def test_a_good_set_has_no_findings(tmp_path: Path) -> None:
    report = inspect_folder(good_set(tmp_path / "mira"), resolution=128)
    assert report.findings == ()
    assert (report.name, report.class_noun, report.held_out) == ("mira", "girl", 2)
    assert len(report.pictures) == 8
    assert len(report.framings) >= 2
    assert sum(count for _, count in report.backgrounds) == 8
    assert len(report.backgrounds) >= 5


def damage(folder: Path) -> None:
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:200])


def shrink(folder: Path) -> None:
    scene(2, 100).save(folder / "2.png")


def blur(folder: Path) -> None:
    scene(2, 480).filter(ImageFilter.GaussianBlur(8)).save(folder / "2.png")


def double(folder: Path) -> None:
    scene(0).save(folder / "2.png", "JPEG", quality=60)


def widen(folder: Path) -> None:
    picture = Image.new("RGB", (600, 150), "#205080")
    picture.paste(scene(2), (200, 0))
    picture.save(folder / "2.png")


def cut_out(folder: Path) -> None:
    picture = scene(2).convert("RGBA")
    alpha = Image.new("L", picture.size, 0)
    alpha.paste(255, (40, 40, 160, 160))
    picture.putalpha(alpha)
    picture.save(folder / "2.png")


def animate(folder: Path) -> None:
    scene(2).save(folder / "2.png", save_all=True, append_images=[scene(3)])


def blacken_mask(folder: Path) -> None:
    Image.new("L", (160, 160), 0).save(folder / "2_mask.png")


def empty_caption(folder: Path) -> None:
    (folder / "2.txt").write_text(" ")


def drop_caption(folder: Path) -> None:
    (folder / "2.txt").unlink()


def long_caption(folder: Path) -> None:
    (folder / "2.txt").write_text("{mira} by the sea, " + "sand, " * 40)


def foreign_placeholder(folder: Path) -> None:
    (folder / "2.txt").write_text("{juno} by the sea")


def innate(folder: Path) -> None:
    (folder / "2.txt").write_text("{mira}, red-haired, with green eyes")


def other_format(folder: Path) -> None:
    scene(2).save(folder / "x.gif")


def orphan(folder: Path) -> None:
    (folder / "nothing.txt").write_text("a caption of nothing")


@pytest.mark.parametrize(
    ("spoil", "level", "code", "file", "message"),
    [
        (damage, "error", "unusable", "2.png", "damaged"),
        (animate, "error", "unusable", "2.png", "animated"),
        (blacken_mask, "error", "unusable", "2_mask.png", "black everywhere"),
        (empty_caption, "error", "unusable", "2.txt", "empty"),
        (shrink, "warning", "tiny", "2.png", "is 100x100"),
        (blur, "warning", "blurred", "2.png", "edge sharpness"),
        (double, "warning", "near-duplicate", "2.png", "same as 0.png"),
        (drop_caption, "warning", "no-caption", "2.png", "write 2.txt"),
        (long_caption, "warning", "long-caption", "2.png", "about 8. tokens.*estimate"),
        (foreign_placeholder, "warning", "placeholder", "2.png", "{juno}"),
        (widen, "note", "proportions", "2.png", "is 600x150; 50%"),
        (cut_out, "note", "transparent", "2.png", "44% of it"),
        (innate, "note", "identity-word", "2.png", "eyes, red-haired"),
        (other_format, "warning", "layout", "x.gif", "save it as PNG"),
        (orphan, "note", "layout", "nothing.txt", "no picture of that name"),
    ],
)
def test_a_fault_is_found_where_it_is(
    tmp_path: Path,
    spoil: Callable[[Path], None],
    level: str,
    code: str,
    file: str,
    message: str,
) -> None:
    folder = good_set(tmp_path / "mira")
    spoil(folder)
    report = inspect_folder(folder)
    assert codes(report) == [code]
    (finding,) = report.findings
    assert (finding.level, finding.file) == (level, folder / file)
    assert re.search(message, finding.message)
    assert "\n" not in finding.message


def test_every_unusable_file_is_reported_at_once_and_errors_come_first(tmp_path: Path) -> None:
    folder = good_set(tmp_path / "mira")
    shrink(folder)
    for name in ("3.png", "4.png"):
        (folder / name).write_bytes(b"rubbish")
    (folder / "6.txt").write_bytes(b"\xff\xff")
    report = inspect_folder(folder)
    assert codes(report) == ["unusable"] * 3 + ["tiny"]
    assert report.count("error") == 3
    assert len(report.pictures) == 5


def test_few_pictures_one_picture_and_none(tmp_path: Path) -> None:
    for count, code in ((1, "one-picture"), (3, "few-pictures")):
        folder = tmp_path / str(count)
        folder.mkdir()
        for number in range(count):
            scene(number).save(folder / f"{number}.png")
        report = inspect_folder(folder)
        assert code in codes(report)
        assert report.held_out == 0
    (tmp_path / "none").mkdir()
    with pytest.raises(CharacterError, match="holds no pictures"):
        inspect_folder(tmp_path / "none")


def test_one_framing_and_one_background_lack_variety(tmp_path: Path) -> None:
    folder = good_set(tmp_path / "mira")
    for number in range(8):
        scene(number, far=0.85).save(folder / f"{number}.png")
    report = inspect_folder(folder)
    assert "framing" in codes(report)
    assert "background" not in codes(report)
    for number in range(8):
        picture = Image.new("RGB", (160, 160), "white")
        side = 40 + 14 * number
        picture.paste("#8030a0", (80 - side // 2, 160 - side, 80 + side // 2, 160))
        picture.save(folder / f"{number}.png")
    report = inspect_folder(folder)
    assert report.backgrounds == (("white", 8),)
    assert "background" in codes(report)
    assert "framing" not in codes(report)


def test_words_of_identity_in_most_captions_are_a_leak(tmp_path: Path) -> None:
    folder = good_set(tmp_path / "mira")
    for number, place in enumerate(PLACES):
        words = "with red hair and a blue coat" if number else ""
        (folder / f"{number}.txt").write_text(f"drawing of the girl mira {words} near {place}")
    found = {(f.code, f.level): f.message for f in inspect_folder(folder).findings}
    messages = [f.message for f in inspect_folder(folder).findings]
    assert set(found) == {("identity-leak", "warning"), ("repeated-phrase", "note")}
    assert any('"red hair" stands in 7 of 8 captions' in message for message in messages)
    assert any('"blue coat"' in message for message in messages)
    assert '"drawing"' in found["repeated-phrase", "note"]


def test_captions_are_measured_by_the_tokenizer_of_the_base(tmp_path: Path) -> None:
    folder = good_set(tmp_path / "mira")
    heard = []

    def tokenizer(text: str) -> list[int]:
        heard.append(text)
        return [0] * (78 if "beach" in text else 77)

    report = inspect_folder(folder, tokenizer=tokenizer)
    assert codes(report) == ["long-caption"]
    assert "has 78 tokens" in report.findings[0].message
    assert "mira girl in beach" in heard


def test_missing_words_about_the_character_are_asked_for(tmp_path: Path) -> None:
    folder = good_set(tmp_path / "mira")
    (folder / "character.toml").unlink()
    for path in folder.glob("*.txt"):
        path.unlink()
    report = inspect_folder(folder)
    assert codes(report) == ["no-captions", "class-noun"]
    assert report.class_noun is None


def test_an_asymmetric_character_must_not_be_flipped(tmp_path: Path) -> None:
    folder = good_set(tmp_path / "mira")
    with (folder / "character.toml").open("a") as file:
        file.write("asymmetric = true\n")
    assert inspect_folder(folder).findings == ()
    report = inspect_folder(folder, flip=True)
    assert [(f.code, f.level) for f in report.findings] == [("flip", "error")]


def test_a_mask_tells_the_subject_from_the_background(tmp_path: Path) -> None:
    folder = good_set(tmp_path / "mira")
    mask = Image.new("L", (160, 160), 0)
    mask.paste(255, (0, 0, 20, 20))
    mask.save(folder / "0_mask.png")
    row = inspect_folder(folder).pictures[0]
    assert row.has_mask
    assert row.framing == "far"
    assert row.subject_share == pytest.approx((20 / 160) ** 2, rel=0.1)


def test_pictures_are_blurred_or_not_at_the_size_they_are_trained_at(tmp_path: Path) -> None:
    folder = good_set(tmp_path / "mira")
    scene(2, 640).filter(ImageFilter.GaussianBlur(3)).save(folder / "2.png")
    assert "blurred" not in codes(inspect_folder(folder, resolution=128), "2.png")
    assert "blurred" in codes(inspect_folder(folder, resolution=512), "2.png")


def test_the_report_holds_out_what_opening_holds_out(tmp_path: Path) -> None:
    folder = good_set(tmp_path / "mira")
    assert inspect_folder(folder).held_out == 2
    with (folder / "character.toml").open("a") as file:
        file.write("held_out = []\n")
    assert inspect_folder(folder).held_out == 0


def test_many_findings_of_a_kind_are_one_line_and_the_most_important_come_first() -> None:
    def finding(level: Level, code: str, number: int) -> Finding:
        return Finding(level, code, Path(f"{number}.png"), f"message {number}")

    findings = [finding("warning", "no-caption", 0)]
    findings += [finding("note", "proportions", number) for number in range(900)]
    findings += [finding("warning", "tiny", number) for number in range(2000)]
    findings += [finding("error", "unusable", 7)]
    assert [(one.code, one.message, count) for one, count in grouped(findings)] == [
        ("unusable", "message 7", 1),
        ("tiny", "message 0", 2000),
        ("no-caption", "message 0", 1),
        ("proportions", "message 0", 900),
    ]
