"""Which base a card or a recipe names, and whether it is taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from personae.errors import UsageError
from personae.models.weights.sources import pick_base, stated_base


@pytest.mark.parametrize(
    "source",
    [
        "owner/name",
        "https://example.org/x",
        "/dev/zero",
        "/nowhere/x.safetensors",
        "x.ckpt",
        "a\0b",
        "x" * 5000,
    ],
)
def test_a_base_that_a_file_names_is_never_looked_for_elsewhere(source: str) -> None:
    with pytest.raises(UsageError, match="name the base with --base"):
        stated_base(source)


def test_a_base_that_a_file_names_is_taken_where_it_is_on_this_machine(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base.safetensors").touch()
    with pytest.raises(UsageError):
        stated_base(str(tmp_path / "base.safetensors"))
    (tmp_path / "base" / "model_index.json").write_text("{}")
    for source in ("toon", str(tmp_path / "base"), str(tmp_path / "base.safetensors")):
        assert stated_base(source) == source


def test_the_base_a_person_names_goes_before_the_one_a_file_states() -> None:
    assert pick_base("owner/name", "toon") == "owner/name"
    assert pick_base(None, "toon") == "toon"
    assert pick_base(None, None) == "toon"
    with pytest.raises(UsageError, match="name the base with --base"):
        pick_base(None, "owner/name")
