"""Files as other tools write them, in the forms people report: read as those tools do, or said."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from folder_world import CAPTIONS, draw, pictures
from personae.characters.character import Character, read_dataset
from personae.characters.checks.inspection import inspect_folder
from personae.errors import CharacterError


def job(root: Path, **settings: object) -> Path:
    """Write an ai-toolkit job of one dataset."""
    dataset = {"folder_path": "img", **settings}
    content = {"config": {"process": [{"trigger_word": "mira girl", "datasets": [dataset]}]}}
    (root / "job.yaml").write_text(json.dumps(content))  # JSON is YAML
    return root / "job.yaml"


def test_an_inverted_mask_marks_the_character_black(tmp_path: Path) -> None:
    pictures(tmp_path / "img")
    for number in range(3):
        mask = Image.new("L", (48, 40), 255)
        mask.paste(0, (0, 0, 12, 40))
        (tmp_path / "msk").mkdir(exist_ok=True)
        mask.save(tmp_path / "msk" / f"{number}.png")
    plain = Character.open(job(tmp_path, mask_path="msk"))
    inverted = Character.open(job(tmp_path, mask_path="msk", invert_mask=True))
    shares = [np.asarray(c.references[0].mask_image()).mean() / 255 for c in (plain, inverted)]
    assert shares == pytest.approx([0.75, 0.25])
    assert plain.fingerprint != inverted.fingerprint
    report = inspect_folder(tmp_path / "job.yaml")
    assert report.mask_share == pytest.approx(0.25)
    assert report.census.masks.used == 3


def test_ai_toolkit_reads_subfolders_but_not_controls(tmp_path: Path) -> None:
    pictures(tmp_path / "img")
    pictures(tmp_path / "img" / "more" / "deep")
    draw(tmp_path / "img" / "_controls" / "c.png", 8)
    assert len(read_dataset(job(tmp_path)).references) == 6


def test_a_dataset_path_may_be_a_folder(tmp_path: Path) -> None:
    pictures(tmp_path / "img")
    reading = read_dataset(job(tmp_path, folder_path=None, dataset_path="img", num_repeats=4))
    assert [(r.caption, r.repeats) for r in reading.references] == [(c, 4) for c in CAPTIONS]


def test_a_missing_folder_of_masks_is_refused(tmp_path: Path) -> None:
    pictures(tmp_path / "img")
    with pytest.raises(CharacterError, match="msk: does not exist"):
        read_dataset(job(tmp_path, mask_path="msk"))


@pytest.mark.parametrize("weight", [-1, 0])
def test_a_weight_that_teaches_nothing_or_away_is_refused(tmp_path: Path, weight: float) -> None:
    pictures(tmp_path / "img")
    with pytest.raises(CharacterError, match=f"'loss_multiplier' is {weight}; it must be above 0"):
        read_dataset(job(tmp_path, loss_multiplier=weight))


def test_settings_of_a_job_that_are_not_taken_over_are_named(tmp_path: Path) -> None:
    pictures(tmp_path / "img")
    notes = read_dataset(job(tmp_path, control_path="c", resolution=[512])).notes
    assert len(notes) == 1
    assert "control_path not taken over" in notes[0]


def test_repeats_of_old_concepts_are_read(tmp_path: Path) -> None:
    pictures(tmp_path / "img")
    concept = {"name": "mira", "path": "img", "repeats": 10.0}
    (tmp_path / "c.json").write_text(json.dumps([concept]))
    assert {r.repeats for r in read_dataset(tmp_path / "c.json").references} == {10}


def toml(root: Path, directory: str = "img", more: str = "") -> Path:
    (root / "dataset.toml").write_text(
        f'[[datasets]]\n[[datasets.subsets]]\nimage_dir = "{directory}"\n'
        f'class_tokens = "mira girl"\nnum_repeats = 10\ncaption_extension = ".txt"\n{more}'
    )
    return root / "dataset.toml"


def test_a_byte_order_mark_changes_nothing(tmp_path: Path) -> None:
    pictures(tmp_path / "img")
    (tmp_path / "character.toml").write_text('class_noun = "girl"\n')
    (tmp_path / "c.json").write_text(json.dumps([{"name": "mira", "path": "img"}]))
    mark = b"\xef\xbb\xbf"
    for path in (toml(tmp_path), tmp_path / "c.json", job(tmp_path), tmp_path / "character.toml"):
        path.write_bytes(mark + path.read_bytes())
    for path in (tmp_path / "dataset.toml", tmp_path / "c.json", tmp_path / "job.yaml"):
        character = Character.open(path)
        assert len(character.references) == 3
        assert character.class_noun == "girl"


@pytest.mark.parametrize("there", ["file", "folder"])
def test_a_windows_path_in_toml_is_refused_with_its_line_and_never_skipped(
    tmp_path: Path, there: str
) -> None:
    pictures(tmp_path)
    path = toml(tmp_path, r"C:\Users\me\img")
    with pytest.raises(CharacterError, match=r"dataset\.toml: is not valid TOML .*line 3.*quotes"):
        read_dataset(path if there == "file" else tmp_path)


def test_backslashes_separate_folders(tmp_path: Path) -> None:
    pictures(tmp_path / "img" / "mira")
    assert len(read_dataset(toml(tmp_path, r"img\\mira")).references) == 3


def test_the_masks_of_kohya_are_read(tmp_path: Path) -> None:
    pictures(tmp_path / "img")
    draw(tmp_path / "msk" / "0.png", 5)
    reading = read_dataset(toml(tmp_path, more='conditioning_data_dir = "msk"\n'))
    assert [r.mask for r in reading.references] == [tmp_path / "msk" / "0.png", None, None]


def metadata(root: Path, names: tuple[str, ...]) -> Path:
    facts = {
        name: {"caption": caption, "tags": "smile"}
        for name, caption in zip(names, CAPTIONS, strict=True)
    }
    (root / "meta.json").write_text(json.dumps(facts))
    path = root / "ds.toml"
    path.write_text(
        '[[datasets]]\n[[datasets.subsets]]\nimage_dir = "img"\nmetadata_file = "meta.json"\n'
    )
    return path


def test_kohyas_metadata_names_pictures_with_and_without_ending_and_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pictures(tmp_path / "img", None)
    monkeypatch.chdir(tmp_path)
    expected = [f"{caption}, smile" for caption in CAPTIONS]
    for names in (
        ("0", "1", "2"),
        ("0.png", "1.PNG", "2.png"),
        ("img/0", "img/1.png", "img\\2.png"),
        tuple(str(folder / str(number)) for number in range(3)),
    ):
        for path in (metadata(tmp_path, names), Path("ds.toml")):
            reading = read_dataset(path)
            assert [r.caption for r in reading.references] == expected, reading.problems


def test_a_name_without_ending_that_two_pictures_have_is_refused(tmp_path: Path) -> None:
    pictures(tmp_path / "img", None)
    draw(tmp_path / "img" / "0.jpg", 9)
    reading = read_dataset(metadata(tmp_path, ("0", "1", "2")))
    assert "names both 0.jpg and 0.png; write the ending" in reading.problems[0]


@pytest.mark.parametrize(
    "lines",
    [
        "file_name, text\n0.png, mira on a beach\n",
        "File_Name ,Text \n0.png,  mira on a beach \n",
        'file_name, text\n0.png, "mira on a beach"\n',
        "\ufefffile_name,TEXT\r\n0.PNG,mira on a beach\r\n",
    ],
)
def test_headers_of_csv_are_compared_without_case_and_blanks(tmp_path: Path, lines: str) -> None:
    draw(tmp_path / "0.png", 0)
    (tmp_path / "metadata.csv").write_bytes(lines.encode())
    assert [r.caption for r in read_dataset(tmp_path).references] == ["mira on a beach"]


def test_a_caption_with_an_unquoted_comma_is_refused_with_its_line(tmp_path: Path) -> None:
    draw(tmp_path / "0.png", 0)
    (tmp_path / "metadata.csv").write_text("file_name,text\n0.png,mira, smiling\n")
    with pytest.raises(CharacterError, match=r"line 2: has more cells than columns \('smiling'\)"):
        Character.open(tmp_path)


def test_columns_that_are_not_captions_are_named(tmp_path: Path) -> None:
    draw(tmp_path / "0.png", 0)
    (tmp_path / "metadata.csv").write_text("file_name,description\n0.png,mira on a beach\n")
    (note,) = read_dataset(tmp_path).notes
    assert "'description' not taken over; captions are read from text, caption" in note


@pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c"])
def test_only_line_feeds_end_the_lines_of_a_table(tmp_path: Path, sign: str) -> None:
    draw(tmp_path / "0.png", 0)
    draw(tmp_path / "1.png", 1)
    caption = json.dumps(f"mira{sign}smiling", ensure_ascii=sign < " ")
    rows = [f'{{"file_name": "{number}.png", "text": {caption}}}' for number in range(2)]
    (tmp_path / "metadata.jsonl").write_text("\r\n".join(rows), encoding="utf-8", newline="")
    assert {r.caption for r in read_dataset(tmp_path).references} == {"mira smiling"}


def test_class_pictures_of_token_folders_are_told(tmp_path: Path) -> None:
    pictures(tmp_path / "10_mira girl")
    draw(tmp_path / "reg" / "1_girl" / "c.png", 9)
    report = inspect_folder(tmp_path)
    assert (report.prior, report.repeats) == (1, {10: 3})
    (finding,) = [one for one in report.findings if one.code == "class-pictures"]
    assert "1 class picture; training learns from them only with --prior images" in finding.message


def test_a_year_in_the_name_of_a_folder_is_told(tmp_path: Path) -> None:
    pictures(tmp_path / "2023_holiday")
    report = inspect_folder(tmp_path)
    assert report.repeats == {2023: 3}
    (finding,) = [one for one in report.findings if one.code == "repeats"]
    assert finding.level == "warning"
    assert finding.file == tmp_path / "2023_holiday"
    assert "shown 2,023 times in a pass" in finding.message


def test_logging_is_quiet_about_a_set_without_faults(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pictures(tmp_path / "10_mira girl")
    with caplog.at_level(logging.INFO):
        Character.open(tmp_path)
    assert caplog.text == ""
