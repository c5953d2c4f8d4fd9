"""`import personae`: the names people use, and that importing takes nothing along."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import personae
from personae.version import __version__


def test_every_public_name_is_there_and_documented() -> None:
    for name in personae.__all__:
        assert getattr(personae, name).__doc__


def test_public_names_are_sorted_and_listed() -> None:
    assert personae.__all__ == sorted(personae.__all__)
    assert dir(personae) == personae.__all__


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Charakter'"):
        personae.Charakter  # noqa: B018


def test_importing_personae_imports_nothing_heavy() -> None:
    code = "import sys, personae; print(sorted({'torch', 'numpy', 'PIL'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_version_is_known_without_an_installation() -> None:
    sources = Path(personae.__file__).parent.rglob("*.py")
    asking = [path.name for path in sources if 'version("personae")' in path.read_text()]
    assert not asking
    assert metadata.version("personae") == __version__
