"""Which formats carry an artifact, and which files are written for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from format_world import trained
from personae.core.registry import lookup
from personae.formats.format import Format, default_target, files_written, formats_for


def test_the_formats_of_an_artifact_carry_its_technique(bases) -> None:
    card = trained("lora", bases["sd1"], rank=2).card
    able = formats_for(card)
    assert {"kohya", "checkpoint"} <= set(able)
    assert all("lora" in each.techniques for each in able.values())


def test_a_family_without_files_in_other_tools_has_the_formats_that_fit_any(
    bases, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = bases["sd1"]
    monkeypatch.setattr(type(base), "file_layouts", ())
    able = formats_for(trained("lora", base, rank=2).card)
    assert able
    assert all(each.any_family for each in able.values())


def test_a_file_lies_beside_its_artifact_and_so_does_what_tools_show() -> None:
    kind = lookup(Format, "kohya")
    target = default_target(Path("a/mira.lora.safetensors"), kind)
    assert target == Path("a/mira.kohya.safetensors")
    names = [path.name for path in files_written(Path("a/mira"), kind)]
    assert names == ["mira.safetensors", "mira.json", "mira.preview.png"]
    folder = lookup(Format, "diffusers_folder")
    assert files_written(Path("a/mira"), folder) == [Path("a/mira")]
