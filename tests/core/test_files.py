"""Folders are made before the work that fills them."""

from __future__ import annotations

from pathlib import Path

import pytest

from personae.core.files import prepare_folder
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
