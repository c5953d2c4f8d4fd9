"""What a worker leaves behind when it is killed."""

from __future__ import annotations

import fcntl
import tempfile
from pathlib import Path

import pytest

from personae.study.ray_worker import LOCK, PREFIX, sweep


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def cell_in(place: Path, name: str) -> Path:
    home = place / f"{PREFIX}{name}"
    (home / "character").mkdir(parents=True)
    (home / LOCK).touch()
    return home


def test_pictures_of_a_killed_worker_are_removed_by_the_next(place: Path) -> None:
    left, other = cell_in(place, "left"), place / "something-else"
    other.mkdir()
    sweep()
    assert not left.exists()
    assert other.exists()


def test_a_folder_in_use_and_one_being_made_stay(place: Path) -> None:
    used, made = cell_in(place, "used"), place / f"{PREFIX}made"
    made.mkdir()
    with (used / LOCK).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        sweep()
        assert used.exists()
    assert made.exists()
    sweep()
    assert not used.exists()
