"""Whatever a command is given to read, a person gets a result or one line, never a traceback."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from personae.cli.app import run
from tiny_world import paint

NOT_FORESEEN = "this was not foreseen"
DEEP, LONG = "[" * 50_000, "9" * 5000
TEXTS = {
    "nothing": "",
    "no text": "\0\x1b[2J\ufffd",
    "nested": DEEP,
    "nested in a table": '{"a": ' + DEEP,
    "a number of 5000 digits": f'{{"format_version": {LONG}, "seed": {LONG}}}',
    "a list": "[]",
    "a word": '"\\ud800"',
    "a number": "1e999",
    "another shape": '{"techniques": [null], "batch": 1, "sampling": [], "artifacts": {"a": []}}',
}
TOML = {
    "nested": f"seed = {DEEP}",
    "nested tables": f"[{'a.' * 3000}a]\nx = 1",
    "a number of 5000 digits": f"seed = {LONG}\nsteps = {LONG}",
    "no numbers": "seed = nan\nsteps = inf\nguidance_scale = nan",
    "another shape": "name = []\ncharacter = {}\nschedule = 3\nlora = [1]\ntechnique = 5",
}
MANIFEST = {"name": "\x1b[2J[/]", "class_noun": "[bold]", "licence": "\x1b]0;x\x07", "files": {}}


def safetensors(card: str) -> bytes:
    """Return a file without tensors whose card is `card`."""
    header = json.dumps({"__metadata__": {"personae": card}}).encode()
    return struct.pack("<Q", len(header)) + header


def png(key: str, text: str, side: int = 1) -> bytes:
    """Return a picture that says it has `side` pixels a side, with a text."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    words = chunk(b"zTXt", key.encode() + b"\0\0" + zlib.compress(text.encode("utf-8", "replace")))
    pixels = chunk(b"IDAT", zlib.compress(b"\0\0"))
    return b"\x89PNG\r\n\x1a\n" + header + words + pixels + chunk(b"IEND", b"")


def archive(path: Path, manifest: str, *names: str) -> Path:
    """Write a `.persona` file with empty members."""
    with zipfile.ZipFile(path, "w") as packed:
        for name in names:
            packed.writestr(zipfile.ZipInfo(name), "")
        packed.writestr(zipfile.ZipInfo("persona.json"), manifest)
    return path


def tables(folder: Path) -> Path:
    """Write lists of pictures as other tools have them."""
    folder.mkdir()
    for name, text in TEXTS.items():
        for ending in ("json", "jsonl", "yaml", "toml"):
            (folder / f"{name}.{ending}").write_text(text, encoding="utf-8")
    for name, text in TOML.items():
        (folder / f"{name} toml.toml").write_text(text, encoding="utf-8")
    return folder


def walk(commands: list[list[object]], capsys: pytest.CaptureFixture[str]) -> None:
    """Run each command and find it ending well."""
    wrong = []
    for command in commands:
        capsys.readouterr()
        try:
            code = run([*map(str, command)])
        except Exception as error:  # which a person would see as a traceback
            wrong.append(f"{command}: {type(error).__name__}: {str(error)[:200]}")
            continue
        shown = capsys.readouterr()
        lines = [line for line in shown.err.split("\n") if line.startswith("personae: ")]
        if code not in (0, 1, 2) or NOT_FORESEEN in shown.err or len(lines) > (code != 0):
            wrong.append(f"{command}: {code}: {shown.err[:300]}")
        if code and not lines and command[0] != "check":  # which lists what it found
            wrong.append(f"{command}: {code} without a word")
        if {"\x1b", "\x07"} & set(shown.out + shown.err):
            wrong.append(f"{command}: shows an escape")
    assert not wrong, "\n".join(wrong)


def of_artifacts(here: Path, base: Path) -> list[list[object]]:
    commands: list[list[object]] = []
    for name, text in TEXTS.items():
        file = here / f"{name}.safetensors"
        file.write_bytes(safetensors(text))
        commands += [
            ["inspect", file],
            ["generate", "{mira}", "--cast", f"mira={file}"],
            ["sheet", "--cast", f"mira={file}"],
            ["export", file, "--to", "kohya"],
            ["import", file, "--base", base],
            ["extract", file],
            ["merge", file, file],
            ["resize", file, "--rank", "1"],
            ["pack", "packed", "--cast", f"mira={file}"],
        ]
    return commands


def of_pictures(here: Path, base: Path) -> list[list[object]]:
    contents = {f"{key} {name}": png(key, text) for key in ("personae", "parameters") for name, text
                in TEXTS.items()}  # fmt: skip
    contents |= {
        "long": png("parameters", "a" * 1_000_000),
        "bomb": png("parameters", "x", side=60_000),
        "cut": png("parameters", "x")[:50],
    }
    commands: list[list[object]] = []
    for name, content in contents.items():
        (file := here / f"{name}.png").write_bytes(content)
        commands += [["inspect", file], ["generate", "--like", file]]
    folder = paint(here / "pictures", 2)
    for name in ("bomb", "cut"):
        (folder / f"{name}.png").write_bytes(contents[name])
    return [*commands, ["check", folder], ["import", here / "cut.png", "--base", base]]


def of_packed(here: Path, base: Path) -> list[list[object]]:
    files = [archive(here / f"{name}.persona", text) for name, text in TEXTS.items()]
    files.append(archive(here / "evil.persona", json.dumps(MANIFEST)))
    files.append(archive(here / "both.persona", json.dumps(MANIFEST), "a.txt", "a.txt/b.txt"))
    files.append(archive(here / "out.persona", json.dumps(MANIFEST), "../a.txt"))
    commands: list[list[object]] = []
    for number, file in enumerate(files):
        commands += [["inspect", file], ["unpack", file, "--out", here / f"out-{number}"]]
    return [*commands, ["import", files[0], "--base", base]]


def of_settings(here: Path, base: Path) -> list[list[object]]:
    commands: list[list[object]] = []
    for number, text in enumerate(TOML.values()):
        folder = paint(here / f"folder-{number}", 2)
        (folder / "character.toml").write_text(text, encoding="utf-8")
        (file := here / f"{number}.toml").write_text(text, encoding="utf-8")
        commands += [
            ["check", folder],
            ["compare", folder],
            ["train", folder],
            ["train", folder, "--config", file],
            ["generate", "x", "--config", file],
            ["sheet", "--suite", file],
            ["study", "run", file],
            ["study", "status", file],
            ["pack", "packed", "--character", folder],
        ]
    return commands


def of_tables(here: Path, base: Path) -> list[list[object]]:
    return [["check", file] for file in sorted(tables(here / "tables").iterdir())]


def of_run_folders(here: Path, base: Path) -> list[list[object]]:
    commands: list[list[object]] = []
    for number, text in enumerate([*TEXTS.values(), *TOML.values()]):
        folder = here / f"run-{number}"
        folder.mkdir()
        for name in ("events.jsonl", "result.json", "config.toml", "study.toml", "cell.toml"):
            (folder / name).write_text(text, encoding="utf-8")
        commands += [["inspect", folder], ["train", "--resume", folder], ["report", folder]]
    return commands


def of_names(here: Path, base: Path) -> list[list[object]]:
    bad = Path(os.fsdecode(os.fsencode(here) + b"/mira-\xff"))
    paint(bad, 2)
    return [
        ["check", bad],
        ["init", bad],
        ["inspect", bad],
        ["train", bad / "nothing", "--steps", "1"],
        ["unpack", bad],
        ["pack", bad / "x", "--character", bad],
        ["inspect", bad / next(bad.glob("*.png")).name],
        ["generate", "x", "--base", bad],
        ["inspect", here / ("x" * 5000)],
        ["check", here / "a\0b"],
        ["unpack", "\udcff.persona"],
    ]


@pytest.mark.parametrize(
    "kind",
    [of_artifacts, of_pictures, of_packed, of_settings, of_tables, of_run_folders, of_names],
)
def test_no_input_shows_a_person_a_traceback(
    kind: Callable[[Path, Path], list[list[object]]],
    here: Path,
    base_folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    walk(kind(here, base_folder), capsys)


def test_an_output_that_takes_nothing_is_one_line() -> None:
    command = [sys.executable, "-m", "personae", "--help"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [done.stderr.strip()]
    assert "no space left" in done.stderr
