"""What tests share: one thread pool, one cache folder for each test, bases built once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from personae.models.family import Family
from tiny_world import bare, bases, paint, shallow_base

# Toy models gain nothing from a second thread, and two wait long for each other on a busy machine.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start


# Files that take minutes; a worker that met one of them last would let the others wait.
LONG = (
    "memory/test_plan", "test_demo", "test_docs", "training/test_train", "test_benchmark",
    "test_cell", "test_compare", "test_accelerations", "test_ray_runner",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files."""

    def place(item: pytest.Item) -> int:
        file = item.path.with_suffix("").as_posix()
        return next((at for at, name in enumerate(LONG) if file.endswith(f"/{name}")), len(LONG))

    items.sort(key=place)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the caches of each test apart from one another and from the user's."""
    monkeypatch.setenv("PERSONAE_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    # What a probe chooses depends on the machine; tests of accelerations name theirs.
    monkeypatch.setenv("PERSONAE_ACCELERATION", "none")


@pytest.fixture(params=list(bases()))
def base(request: pytest.FixtureRequest) -> Iterator[Family]:
    """Yield each tiny base in turn; a test must leave it as it was."""
    loaded = bases()[request.param]
    yield loaded
    assert bare(loaded), "the test left something attached to the base"


@pytest.fixture
def sd1() -> Iterator[Family]:
    """Yield the tiny base of SD 1.x shape; a test must leave it as it was."""
    loaded = bases()["tiny-sd1"]
    yield loaded
    assert bare(loaded), "the test left something attached to the base"


@pytest.fixture
def shallow() -> Iterator[Family]:
    """Yield a base of that shape with fewer levels; a test must leave it as it was."""
    loaded = shallow_base()
    yield loaded
    assert bare(loaded), "the test left something attached to the base"


@pytest.fixture(scope="session")
def character(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with six pictures of a character, one of which is held out."""
    return paint(tmp_path_factory.mktemp("characters") / "mira")
