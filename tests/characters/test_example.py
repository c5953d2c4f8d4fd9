"""The example character."""

from __future__ import annotations

from pathlib import Path

import pytest

from personae.characters.example import example_character


def test_the_example_character_is_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (example_character() / "character.toml").is_file()
