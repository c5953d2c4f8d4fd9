"""What the tests of the commands share: a base in a folder, and a character trained on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from personae.cli.app import run
from personae.models.load import load_base
from personae.models.toys import tiny_stable_diffusion
from tiny_world import artifact_of, make, stir

Lines = list[dict[str, Any]]


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a diffusers folder with a tiny base."""
    folder = tmp_path_factory.mktemp("bases") / "tiny"
    tiny_stable_diffusion(1).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def artifact(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with a LoRA of mira on the tiny base."""
    base = load_base(base_folder, device="cpu", precision="fp32")
    made = stir(make("lora", base, rank=2))
    return artifact_of(made, base).save(tmp_path_factory.mktemp("made") / "mira.lora.safetensors")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run each test in a folder of its own, which is where the commands write."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Callable[..., Lines]:
    """Return a function that runs a command with --json and returns what it told."""

    def tell(*arguments: object, code: int = 0) -> Lines:
        capsys.readouterr()
        assert run([*map(str, arguments), "--json"]) == code
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return tell


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return a function that runs a command which must be refused, and returns the one line."""

    def refuse(*arguments: object, code: int = 2) -> str:
        capsys.readouterr()
        assert run([*map(str, arguments)]) == code
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1, lines
        return lines[0]

    return refuse
