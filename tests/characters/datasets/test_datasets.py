"""One set of pictures, written in every layout, is read as the same training set."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from folder_world import CAPTIONS, draw, pictures
from personae.characters.character import Character, read_dataset
from personae.errors import CharacterError

Write = Callable[[Path, int], Path]


def flat(root: Path, repeats: int) -> Path:
    assert repeats == 1, "a flat folder has no repeats"
    return pictures(root / "set")


def flat_caption(root: Path, repeats: int) -> Path:
    assert repeats == 1, "a flat folder has no repeats"
    return pictures(root / "set", ".caption")


def token_folders(root: Path, repeats: int) -> Path:
    return pictures(root / "set" / f"{repeats}_mira girl").parent


def front_end(root: Path, repeats: int) -> Path:
    pictures(root / "set" / "img" / f"{repeats}_mira girl")
    draw(root / "set" / "reg" / "1_girl" / "c.png", 9)
    return root / "set"


def jsonl(root: Path, repeats: int) -> Path:
    folder = pictures(root / "set", None)
    rows = [
        {"file_name": f"{n}.png", "text": caption, "repeats": repeats}
        for n, caption in enumerate(CAPTIONS)
    ]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder


def jsonl_and_txt(root: Path, repeats: int) -> Path:
    pictures(root / "set")
    return jsonl(root, repeats)


def table(root: Path, repeats: int) -> Path:
    folder = pictures(root / "set", None)
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "text", "repeats"])
        writer.writerows([f"{n}.png", caption, repeats] for n, caption in enumerate(CAPTIONS))
    return folder


def invoke(root: Path, repeats: int) -> Path:
    folder = pictures(root / "set", None)
    rows = [
        {"image": f"{n}.png", "text": caption, "repeats": repeats}
        for n, caption in enumerate(CAPTIONS)
    ]
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder / "data.jsonl"


def kohya_json(root: Path, repeats: int) -> Path:
    assert repeats == 1, "the repeats of a kohya dictionary are written in its TOML file"
    folder = pictures(root / "set", None)
    content = {f"{n}.png": {"caption": caption} for n, caption in enumerate(CAPTIONS)}
    (folder / "meta.json").write_text(json.dumps(content), encoding="utf-8")
    return folder / "meta.json"


def toml(root: Path, repeats: int) -> Path:
    pictures(root / "set" / "pictures")
    (root / "set" / "dataset.toml").write_text(
        f"""
        [general]
        caption_extension = ".txt"
        shuffle_caption = true
        [[datasets]]
        resolution = 512
          [[datasets.subsets]]
          image_dir = "pictures"
          class_tokens = "mira girl"
          num_repeats = {repeats}
        [[datasets]]
        resolution = 768
          [[datasets.subsets]]
          image_dir = "pictures"
          num_repeats = {repeats}
        """,
        encoding="utf-8",
    )
    return root / "set" / "dataset.toml"


def toml_folder(root: Path, repeats: int) -> Path:
    return toml(root, repeats).parent


def toml_metadata(root: Path, repeats: int) -> Path:
    kohya_json(root, 1)
    (root / "set" / "dataset.toml").write_text(
        '[[datasets]]\n[[datasets.subsets]]\nmetadata_file = "meta.json"\n'
        f"num_repeats = {repeats}\n",
        encoding="utf-8",
    )
    return root / "set" / "dataset.toml"


def ai_toolkit(root: Path, repeats: int) -> Path:
    pictures(root / "set" / "pictures")
    (root / "set" / "job.yaml").write_text(
        f"""
job: extension
config:
  name: mira
  process:
    - type: sd_trainer
      trigger_word: mira girl
      datasets:
        - folder_path: pictures
          caption_ext: txt
          num_repeats: {repeats}
          resolution: [512, 768]
""",
        encoding="utf-8",
    )
    return root / "set" / "job.yaml"


def onetrainer(root: Path, repeats: int) -> Path:
    pictures(root / "set" / "pictures")
    concepts = [
        {"name": "mira", "path": "pictures", "balancing": float(repeats), "type": "STANDARD"},
        {"name": "off", "path": "nowhere", "enabled": False},
    ]
    (root / "set" / "concepts.json").write_text(json.dumps(concepts), encoding="utf-8")
    return root / "set" / "concepts.json"


WITH_REPEATS = [
    token_folders,
    front_end,
    jsonl,
    jsonl_and_txt,
    table,
    invoke,
    toml,
    toml_folder,
    toml_metadata,
    ai_toolkit,
    onetrainer,
]
WITHOUT = [flat, flat_caption, kohya_json]


@pytest.mark.parametrize(
    ("write", "repeats"),
    [(write, 1) for write in WITHOUT + WITH_REPEATS] + [(write, 3) for write in WITH_REPEATS],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_every_layout_gives_the_same_pictures_captions_and_repeats(
    tmp_path: Path, write: Write, repeats: int
) -> None:
    character = Character.open(write(tmp_path, repeats))
    expected = pictures(tmp_path / "expected", None)
    read = [(r.image().tobytes(), r.caption, r.repeats) for r in character.references]
    assert read == [
        (Image.open(expected / f"{n}.png").tobytes(), caption, repeats)
        for n, caption in enumerate(CAPTIONS)
    ]


def test_the_fingerprint_is_the_same_in_every_layout(tmp_path: Path) -> None:
    found = {
        Character.open(write(tmp_path / write.__name__, 1)).fingerprint
        for write in WITHOUT + [write for write in WITH_REPEATS if write is not front_end]
    }
    assert len(found) == 1


def test_token_folders_name_the_character_and_caption_what_has_no_file(tmp_path: Path) -> None:
    draw(tmp_path / "10_mira girl" / "a.png", 1)
    draw(tmp_path / "notes" / "b.png", 2)
    character = Character.open(tmp_path)
    assert (character.name, character.class_noun, character.phrase) == ("mira", "girl", "mira girl")
    assert [(r.caption, r.repeats) for r in character.references] == [("mira girl", 10)]
    assert character.captions("sks girl") == ("sks girl",)


def test_a_picture_beside_token_folders_is_refused(tmp_path: Path) -> None:
    draw(tmp_path / "10_mira" / "a.png", 1)
    draw(tmp_path / "loose.png", 2)
    with pytest.raises(CharacterError, match=r"loose\.png: lies beside N_token folders"):
        Character.open(tmp_path)


def test_the_front_end_layout_brings_class_pictures(tmp_path: Path) -> None:
    character = Character.open(front_end(tmp_path, 2))
    assert [(r.caption, r.repeats) for r in character.prior] == [("girl", 1)]
    assert len(character.references) == 3


def test_kohya_regularisation_subsets_are_prior_and_affixes_are_added(tmp_path: Path) -> None:
    pictures(tmp_path / "a")
    pictures(tmp_path / "reg", None)
    config = tmp_path / "d.toml"
    config.write_text(
        """
        [general]
        caption_prefix = "best, "
        [[datasets]]
          [[datasets.subsets]]
          image_dir = "a"
          caption_extension = "txt"
          caption_suffix = ", end"
          [[datasets.subsets]]
          image_dir = "reg"
          is_reg = true
          class_tokens = "girl"
        """,
        encoding="utf-8",
    )
    character = Character.open(config)
    assert character.references[0].caption == f"best, {CAPTIONS[0]}, end"
    assert {r.caption for r in character.prior} == {"best, girl"}


def test_kohya_without_extension_reads_txt_and_says_that_kohya_would_not(tmp_path: Path) -> None:
    path = toml(tmp_path, 1)
    path.write_text(path.read_text().replace('caption_extension = ".txt"', ""))
    reading = read_dataset(path)
    assert reading.references[0].caption == CAPTIONS[0]
    assert any("kohya would look for .caption" in note for note in reading.notes)
    assert any("resolution, shuffle_caption not taken over" in note for note in reading.notes)


def test_one_caption_line_is_read_by_kohya_and_all_of_a_flat_folder(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "set" / "2_mira")
    (folder / "0.txt").write_text("first line\nsecond   line\n")
    assert Character.open(folder.parent).references[0].caption == "first line"
    assert Character.open(folder).references[0].caption == "first line second line"


def test_ai_toolkit_masks_defaults_weights_and_prior_sets(tmp_path: Path) -> None:
    pictures(tmp_path / "a", None)
    draw(tmp_path / "m" / "1.png", 5)
    draw(tmp_path / "reg" / "r.png", 6)
    (tmp_path / "c.yml").write_text(
        """
config:
  process:
    - datasets:
        - folder_path: a
          default_caption: "[trigger] in the park"
          mask_path: m
          loss_multiplier: 2
          trigger_word: mira
        - {folder_path: reg, is_reg: true, default_caption: a girl}
"""
    )
    character = Character.open(tmp_path / "c.yml")
    assert character.captions("<mira>") == ("<mira> in the park",) * 3
    assert [r.mask for r in character.references] == [None, tmp_path / "m" / "1.png", None]
    assert {r.loss_weight for r in character.references} == {2.0}
    assert [r.caption for r in character.prior] == ["a girl"]
    assert character.phrase == "mira"


def test_onetrainer_kinds_subfolders_and_caption_sources(tmp_path: Path) -> None:
    draw(tmp_path / "a" / "deep" / "red hat.png", 1)
    draw(tmp_path / "a" / "blue.png", 2)
    draw(tmp_path / "a" / "blue-masklabel.png", 2)
    draw(tmp_path / "v" / "v.png", 3)
    draw(tmp_path / "p" / "p.png", 4)
    (tmp_path / "prompts.txt").write_text("a girl\nanother line\n")
    by_name = {"prompt_source": "filename"}
    concept = {"prompt_source": "concept", "prompt_path": "prompts.txt"}
    (tmp_path / "c.json").write_text(
        json.dumps(
            [
                {"name": "Mira", "path": "a", "include_subdirectories": True, "text": by_name},
                {"name": "check", "path": "v", "type": "VALIDATION"},
                {"name": "class", "path": "p", "type": "PRIOR_PREDICTION", "text": concept},
            ]
        )
    )
    character = Character.open(tmp_path / "c.json")
    assert character.name == "mira"
    assert [r.caption for r in character.references] == ["blue", "red hat"]
    assert character.references[0].mask == tmp_path / "a" / "blue-masklabel.png"
    assert [r.path.name for r in character.held_out] == ["v.png"]
    assert [r.caption for r in character.prior] == ["a girl"]


@pytest.mark.parametrize(
    ("concept", "message"),
    [
        ({"type": "STANDART"}, "'STANDART'.*Did you mean 'STANDARD'"),
        ({"balancing": 2.5}, "balancing is 2.5 REPEATS"),
        ({"balancing_strategy": "SAMPLES", "balancing": 10}, "balancing is 10 SAMPLES"),
        ({"text": {"prompt_source": "sampel"}}, "'sampel'.*Did you mean 'sample'"),
        ({"loss_weight": "high"}, "'loss_weight' is 'high'; expected float"),
    ],
)
def test_onetrainer_settings_that_cannot_be_kept_are_refused(
    tmp_path: Path, concept: dict, message: str
) -> None:
    pictures(tmp_path / "a")
    (tmp_path / "c.json").write_text(json.dumps([{"name": "m", "path": "a", **concept}]))
    with pytest.raises(CharacterError, match=message):
        Character.open(tmp_path / "c.json")


def test_a_table_that_disagrees_with_a_caption_file_is_refused(tmp_path: Path) -> None:
    folder = jsonl_and_txt(tmp_path, 1)
    (folder / "1.txt").write_text("something else")
    with pytest.raises(CharacterError, match=r"metadata\.jsonl, line 2: the caption differs"):
        Character.open(folder)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"file_name": "../secret.png"}', "not inside"),
        ('{"file_name": "/etc/secret.png"}', "not inside"),
        ('{"file_name": "gone.png"}', "does not exist, though"),
        ('{"text": "no picture"}', "has no 'file_name'"),
        ("[1, 2]", "expected an object"),
        ("{oops", "is not JSON"),
        ('{"file_name": "0.png", "text": 5}', "expected text"),
        ('{"file_name": "0.png", "repeats": 0}', "repeats is 0"),
    ],
)
def test_a_broken_row_is_refused_with_its_line(tmp_path: Path, row: str, message: str) -> None:
    folder = jsonl(tmp_path, 1)
    draw(tmp_path / "secret.png", 1)
    with (folder / "metadata.jsonl").open("a") as file:
        file.write(f"\n{row}\n")
    with pytest.raises(CharacterError, match=message) as caught:
        Character.open(folder)
    assert "metadata.jsonl, line 4" in str(caught.value)


def test_two_layouts_at_once_are_refused_by_name(tmp_path: Path) -> None:
    folder = jsonl(tmp_path, 1)
    shutil.copy(toml(tmp_path / "other", 1), folder)
    with pytest.raises(CharacterError, match=r"could be metadata.* and kohya TOML"):
        Character.open(folder)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken.toml", r"is not valid TOML \(.*line 1"),
        ("list.yaml", r"is not valid YAML \(.*line 2"),
        ("other.json", r"is not valid JSON \(.*line 1"),
    ],
)
def test_a_configuration_that_cannot_be_parsed_is_refused_with_its_line(
    tmp_path: Path, name: str, message: str
) -> None:
    (tmp_path / name).write_text("[[datasets\n", encoding="utf-8")
    for path in (tmp_path / name, tmp_path):
        with pytest.raises(CharacterError, match=message) as caught:
            Character.open(path)
        assert str(caught.value).startswith(str(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "content"),
    [("other.toml", "a = 1"), ("list.yaml", "[1]"), ("other.json", "{}"), ("readme.txt", "[[d")],
)
def test_a_file_in_no_layout_is_refused_with_the_known_ones(
    tmp_path: Path, name: str, content: str
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(CharacterError, match=r"no known layout.*OneTrainer"):
        Character.open(tmp_path / name)


def test_a_yaml_file_cannot_run_code(tmp_path: Path) -> None:
    pictures(tmp_path)
    (tmp_path / "x.yaml").write_text("!!python/object/apply:os.system ['touch ran']\n")
    with pytest.raises(CharacterError, match="no known layout"):
        Character.open(tmp_path / "x.yaml")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.csv", b'file_name,text\n"0.png,never closed\n', "not valid CSV"),
        ("m.csv", b"file_name,text\n", "lists no pictures"),
        ("m.csv", "file_name,text\n0.png,Mädchen\n".encode("latin-1"), "not UTF-8"),
        ("m.jsonl", b"", "lists no pictures"),
        ("m.jsonl", b"[" * 100_000, "is not JSON"),
        ("d.toml", b"[[datasets]]\n", "has no \\[\\[datasets.subsets"),
        ("d.toml", b"[[datasets]]\n[[datasets.subsets]]\nnum_repeats = 1\n", "no image_dir"),
        ("d.toml", b"[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'x'\n", "x: does not exist"),
        (
            "d.toml",
            b"[[datasets]]\n[[datasets.subsets]]\nimage_dir = '.'\nnum_repeats = 'two'\n",
            "'num_repeats' is 'two'; expected int",
        ),
        ("j.yaml", b"config: {process: [{datasets: [{num_repeats: 2}]}]}", "no folder_path"),
        (
            "j.yaml",
            b"config: {process: [{datasets: [{folder_path: ., num_repeats: 0}]}]}",
            "repeats is 0",
        ),
        ("c.json", b'[{"path": ".", "enabled": false}]', "no concept is enabled"),
        ("c.json", b'[{"path": ".", "type": "VALIDATION"}]', "no pictures to learn from"),
    ],
)
def test_a_broken_configuration_is_refused_in_one_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    pictures(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CharacterError, match=message) as caught:
        Character.open(tmp_path / name)
    assert "\n" not in str(caught.value)
