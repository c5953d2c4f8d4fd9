"""The cache gives back what was put in, or nothing; and nobody needs it."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from personae.core import cache
from personae.core.cache import TensorCache, ValueCache, default_folder, keep
from personae.core.files import write_text


def kept(value: float, key: str, folder: Path | None = None) -> float:
    """Return what the cache has under `key`, `value` where it has nothing."""
    tensors = TensorCache(folder or default_folder()).get(key, lambda: {"x": torch.tensor(value)})
    return tensors["x"].item()


def entry(key: str) -> Path:
    kept(1.0, key)
    return max(default_folder().rglob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)


def test_what_was_kept_is_given_back() -> None:
    assert kept(1.0, "a") == 1.0
    assert kept(2.0, "a") == 1.0
    assert kept(2.0, "b") == 2.0


def test_entries_that_were_exchanged_are_made_anew() -> None:
    first = entry("a")
    second = entry("b")
    shutil.copy(second, first)
    assert kept(3.0, "a") == 3.0
    assert kept(4.0, "a") == 3.0


@pytest.mark.parametrize("damage", ["edited", "old", "cut", "empty"])
def test_an_entry_that_was_altered_is_made_anew(damage: str) -> None:
    path = entry("a")
    data = path.read_bytes()
    match damage:
        case "edited":
            path.write_bytes(data[:-1] + b"\x01")
        case "old":  # of a version that kept neither key nor checksum
            save_file(load_file(path), path)
        case "cut":
            path.write_bytes(data[:-2])
        case "empty":
            path.write_bytes(b"")
    assert kept(3.0, "a") == 3.0
    assert kept(4.0, "a") == 3.0


def value(kept: int, about: str) -> int:
    """Return the value that is kept for `about`, `kept` where there is none."""
    return ValueCache(default_folder() / "values", int).get({"of": about}, lambda: kept)


def value_file(about: str) -> Path:
    value(1, about)
    return max((default_folder() / "values").iterdir(), key=lambda path: path.stat().st_mtime_ns)


def test_a_value_that_was_kept_is_given_back_for_what_it_depends_on() -> None:
    assert value(1, "a") == 1
    assert value(2, "a") == 1
    assert value(2, "b") == 2


@pytest.mark.parametrize(
    ("old", "new"),
    [('"value": 1', '"value": 9'), ('"a"', '"b"'), ('"value": 1', '"value": "1"'), ("}", "")],
)
def test_a_value_that_was_altered_is_made_anew(old: str, new: str) -> None:
    path = value_file("a")
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(old, new), encoding="utf-8")
    assert text != path.read_text(encoding="utf-8")
    assert value(3, "a") == 3
    assert value(4, "a") == 3


def test_values_that_were_exchanged_are_made_anew() -> None:
    first, second = value_file("a"), value_file("b")
    shutil.copy(second, first)
    assert value(3, "a") == 3


def test_a_folder_that_cannot_be_written_is_done_without_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PERSONAE_CACHE", str(tmp_path / "file" / "below"))
    cache._mention.cache_clear()
    with caplog.at_level(logging.WARNING):
        store, made = TensorCache(default_folder()), iter((1.0, 2.0))
        found = [store.get("a", lambda: {"x": torch.tensor(next(made))}) for _ in range(3)]
        assert not keep(lambda: write_text(default_folder() / "note", "text"))
    assert [tensors["x"].item() for tensors in found] == [1.0] * 3
    (note,) = caplog.messages
    assert "the cache cannot be written (Not a directory)" in note
    assert "PERSONAE_CACHE" in note
