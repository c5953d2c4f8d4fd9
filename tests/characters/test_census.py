"""Nothing of a person's data is left out without a word: what is found is used or named."""

import json
import logging
import unicodedata
from pathlib import Path

import pytest

from folder_world import draw, pictures
from personae.characters.census import Census, Tally, take_census
from personae.characters.character import Character, read_dataset


def census(path: Path) -> Census:
    return take_census(path, read_dataset(path))


def left(path: Path) -> dict[str, str]:
    return {str(one.path.relative_to(path)): one.reason for one in census(path).unused}


def test_a_set_that_is_used_whole_leaves_nothing(tmp_path: Path) -> None:
    pictures(tmp_path)
    draw(tmp_path / "masks" / "0.png", 5)
    draw(tmp_path / "1_mask.png", 6)
    (tmp_path / "character.toml").write_text('name = "mira"')
    assert census(tmp_path) == Census(Tally(3, 3), Tally(3, 3), Tally(2, 2), ())


@pytest.mark.parametrize("ending", ["gif", "tga", "jp2", "heic", "tiff", "apng"])
def test_pictures_of_other_formats_are_named(tmp_path: Path, ending: str) -> None:
    pictures(tmp_path)
    (tmp_path / f"x.{ending}").write_bytes(b"whatever")
    assert left(tmp_path) == {f"x.{ending}": "is not read; save it as PNG, JPEG or WebP"}
    assert census(tmp_path).pictures == Tally(4, 3)


def test_captions_masks_and_subfolders_that_nothing_uses_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pictures(tmp_path)
    (tmp_path / "lost.txt").write_text("a caption")
    (tmp_path / "0.caption").write_text("another")
    draw(tmp_path / "masks" / "9.png", 5)
    draw(tmp_path / "more" / "deep" / "b.png", 4)
    found = left(tmp_path)
    assert found["lost.txt"] == "has no picture of that name beside it"
    assert found["0.caption"].startswith("is not read: the picture has another caption")
    assert found["masks/9.png"].startswith("is the mask of no picture that is used")
    assert found["more/deep/b.png"].startswith("lies in a folder that is not read")
    assert len(found) == 4
    with caplog.at_level(logging.WARNING):
        Character.open(tmp_path)
    assert "left out are 1 picture, 2 captions, 1 mask" in caplog.text


def test_pictures_of_an_own_run_are_not_counted(tmp_path: Path) -> None:
    pictures(tmp_path)
    draw(tmp_path / "run" / "previews" / "0.png", 5)
    (tmp_path / "run" / "events.jsonl").write_text("")
    assert census(tmp_path).unused == ()


def test_every_layout_accounts_for_what_it_leaves(tmp_path: Path) -> None:
    """One picture of each set is beside, below or outside of what its layout reads."""
    aside = draw(tmp_path / "kohya" / "other" / "x.png", 7).parent.parent
    pictures(aside / "10_mira girl")
    assert "other/x.png" in left(aside)
    table = pictures(tmp_path / "table", None)
    (table / "metadata.jsonl").write_text(json.dumps({"file_name": "0.png", "text": "mira"}))
    assert left(table) == dict.fromkeys(
        ("1.png", "2.png"), "has no row in metadata.jsonl and is not used"
    )
    pictures(tmp_path / "one" / "img" / "more")
    draw(tmp_path / "one" / "img" / "a.png", 8)
    concepts = tmp_path / "one" / "concepts.json"
    concepts.write_text(json.dumps([{"name": "mira", "path": "img"}]))
    assert census(concepts).pictures == Tally(4, 1)


def test_capitals_and_decomposed_letters_meet(tmp_path: Path) -> None:
    composed = unicodedata.normalize("NFC", "mira_é")
    decomposed = unicodedata.normalize("NFD", composed)
    draw(tmp_path / f"{composed}.PNG", 1)
    (tmp_path / f"{decomposed}.TXT").write_text("mira in the rain")
    draw(tmp_path / "Masks" / f"{decomposed}.png", 2)
    draw(tmp_path / "b.png", 3)
    draw(tmp_path / "B_MASK.png", 4)
    (tmp_path / "B.Caption").write_text("mira on a beach")
    found = {r.path.stem: r for r in read_dataset(tmp_path).references}
    assert found[composed].caption == "mira in the rain"
    assert found[composed].mask is not None
    assert found["b"].caption == "mira on a beach"
    assert found["b"].mask == tmp_path / "B_MASK.png"
    assert census(tmp_path).unused == ()


def test_the_exact_name_goes_before_one_in_other_case(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", 1)
    (tmp_path / "a.txt").write_text("mira in the rain")
    (tmp_path / "A.TXT").write_text("mira on a beach")
    assert read_dataset(tmp_path).references[0].caption == "mira in the rain"
    assert list(left(tmp_path)) == ["A.TXT"]
