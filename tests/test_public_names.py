"""The doors of the package and its rooms: what they show, and that opening one is quick."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest

import personae
from personae.version import __version__

ROOT = Path(personae.__file__).parent
ROOMS = sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))
WITHOUT_A_DOOR = {"cli", "core"}  # the ground and the command line are no library
DOORS = ["personae", *(f"personae.{room}" for room in ROOMS if room not in WITHOUT_A_DOOR)]
HEAVY = {"torch", "diffusers", "transformers", "numpy", "PIL", "matplotlib", "pydantic", "peft"}


@pytest.fixture(params=DOORS)
def door(request: pytest.FixtureRequest) -> ModuleType:
    return importlib.import_module(request.param)


def test_every_name_of_a_door_is_there_and_documented(door: ModuleType) -> None:
    for name in door.__all__:
        words = inspect.getdoc(getattr(door, name))
        assert words, name
        assert not words.startswith(f"{name}("), f"{name} has only what dataclass wrote"


def test_the_names_of_a_door_are_sorted_and_listed(door: ModuleType) -> None:
    assert door.__all__ == sorted(door.__all__)
    assert dir(door) == door.__all__


def test_a_door_says_in_a_sentence_or_two_what_its_room_is(door: ModuleType) -> None:
    assert 1 <= door.__doc__.count(".\n") <= 3


def test_a_type_checker_sees_the_names_of_a_door(door: ModuleType) -> None:
    tree = ast.parse(Path(door.__file__).read_text("utf-8"))
    (seen,) = [node for node in tree.body if isinstance(node, ast.If)]
    assert sorted(alias.name for line in seen.body for alias in line.names) == door.__all__
    for line in seen.body:
        for alias in line.names:
            defined = importlib.import_module(line.module)
            assert getattr(defined, alias.name) is getattr(door, alias.name)


def test_a_door_shows_a_function_whose_module_has_its_name() -> None:
    code = """
import personae.training.train, personae.evaluation.evaluate
from personae.training import train
from personae.evaluation import evaluate
from personae.artifacts import merge
import personae.artifacts.merge
print(callable(train), callable(evaluate), callable(personae.artifacts.merge))
"""
    assert told_by(code) == "True True True"


def test_what_the_package_shows_a_room_shows_too() -> None:
    rooms = [importlib.import_module(name) for name in DOORS[1:]]
    for name in set(personae.__all__) - {"errors"}:
        shown = [getattr(room, name) for room in rooms if name in room.__all__]
        assert shown == [getattr(personae, name)], name


def test_an_unknown_name_is_refused(door: ModuleType) -> None:
    with pytest.raises(AttributeError, match="no attribute 'Charakter'"):
        door.Charakter  # noqa: B018


def test_opening_the_doors_imports_nothing_heavy() -> None:
    code = f"""
import importlib, sys
for name in {DOORS}:
    importlib.import_module(name)
    print(name, sorted({HEAVY} & set(sys.modules)))
"""
    assert told_by(code).splitlines() == [f"{name} []" for name in DOORS]


def test_the_help_imports_nothing_heavy() -> None:
    libraries = HEAVY - {"pydantic"}
    code = f"""
import sys
from personae.cli.app import run
code = run(["--help"])
print(code, sorted({libraries} & set(sys.modules)))
"""
    assert told_by(code).splitlines()[-1] == "0 []"


def test_the_version_is_known_without_an_installation() -> None:
    sources = Path(personae.__file__).parent.rglob("*.py")
    asking = [path.name for path in sources if 'version("personae")' in path.read_text()]
    assert not asking
    assert metadata.version("personae") == __version__


def told_by(code: str) -> str:
    """Return what a fresh process prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()
