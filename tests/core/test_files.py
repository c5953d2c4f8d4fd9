"""Folders are made before the work that fills them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from personae.core.files import (
    free_path,
    prepare_folder,
    replacing,
    safe_name,
    stem_of,
    write_text,
)
from personae.errors import UsageError


def test_a_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    prepare_folder(tmp_path / "new" / "one")
    assert list((tmp_path / "new" / "one").iterdir()) == []


@pytest.mark.parametrize("name", ["mira.png", "mira.PNG/inside", "sheet.webp"])
def test_no_new_folder_is_named_like_a_picture(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="has the name of a picture"):
        prepare_folder(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_may_have_any_name(tmp_path: Path) -> None:
    (tmp_path / "old.png").mkdir()
    prepare_folder(tmp_path / "old.png")


@pytest.mark.parametrize("text", ["girl", "old woman", "Mädchen", "lora-rank=4-s0", "a.b"])
def test_a_text_that_can_name_a_file_names_it(text: str) -> None:
    assert safe_name(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "/etc/x",
        "../../x",
        "..",
        ".",
        "",
        " ",
        "a\\b",
        "a\0b",
        "a\x1b[2J",
        "é" * 200,
        "\udcff",
        ".hidden",
    ],
)
def test_any_other_text_becomes_one_name_inside_its_folder(text: str, tmp_path: Path) -> None:
    name = safe_name(text)
    (tmp_path / f"{name}-0.safetensors").touch()
    assert [path.parent for path in tmp_path.rglob("*")] == [tmp_path]
    assert name.isprintable()
    assert safe_name(text + "x") != name


def test_every_file_has_the_mode_that_the_umask_gives(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with replacing(tmp_path / "x.safetensors") as temporary:
            save_file({"x": torch.zeros(1)}, temporary)
        write_text(tmp_path / "x.txt", "text")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o640}


def test_the_stem_of_a_file_ends_at_its_first_dot() -> None:
    assert stem_of(Path("a/mira.lora.safetensors")) == "mira"
    assert stem_of(Path(".mira.persona")) == "mira"


def test_a_taken_name_gets_a_number(tmp_path: Path) -> None:
    assert free_path(tmp_path, "sheet", ".png") == tmp_path / "sheet.png"
    (tmp_path / "sheet.png").touch()
    (tmp_path / "sheet-2.png").touch()
    assert free_path(tmp_path, "sheet", ".png") == tmp_path / "sheet-3.png"
