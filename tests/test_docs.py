"""The documentation: its commands and programs run, its links lead somewhere, its tables are true.

Long work is cut to toy length by options at the end of a line, which count over earlier ones.
"""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.main import get_command

from personae.cli.app import build, run
from personae.core.devices import HOST
from personae.core.seeds import generator_for
from personae.errors import ArtifactError
from personae.evaluation.metric import Evidence, Sample
from personae.evaluation.suite import load_suite
from personae.models.family import Family
from tiny_world import artifact_of, bare, make, prediction, stir

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
COLUMNS = 120
TOY_TRAINING = "--steps 1 --batch-size 1 --validate-every 99 --preview-prompts '{character}'"
TOY = {
    "train": TOY_TRAINING,
    "generate": "--steps 1",
    "sheet": "--steps 1",
}
WALKED = ("README.md", "docs/tutorial.md")  # pages whose lines are run one after another
LONG = ("compare", "demo")  # have tests of their own, at toy size
SHELL = ("mkdir", "cp")


def blocks(page: Path, language: str) -> list[str]:
    """Return the code blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)


def lines(page: Path) -> list[str]:
    """Return the commands that a page tells to type."""
    console = "".join(blocks(page, "console")).replace("\\\n", "").splitlines()
    return [line.removeprefix("$ ") for line in console if line.startswith("$ ")]


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with the examples, as the repository's root has them, to run commands in."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", WALKED)
def test_what_a_page_tells_to_type_runs(
    name: str, clone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for toml in blocks(ROOT / name, "toml"):
        file = re.match(r"# (\S+)", toml)[1]
        (clone / file).write_text(toml, encoding="utf-8")
    for line in lines(ROOT / name):
        program, *words = shlex.split(line)
        if program in SHELL:
            subprocess.run(line, shell=True, check=True, cwd=clone)
        elif program == "personae" and words[0] not in LONG:
            toy = "" if "--resume" in words or "--like" in words else TOY.get(words[0], "")
            assert run([*words, *shlex.split(toy)]) == 0, (line, capsys.readouterr().err)


@pytest.mark.parametrize("name", WALKED)
def test_the_programs_of_a_page_run(name: str, clone: Path) -> None:
    for program in blocks(ROOT / name, "python"):
        quick = re.sub(r'"steps": \d+', '"steps": 1', program).replace("steps=25", "steps=1")
        exec(compile(quick, name, "exec"), {})
    assert list(clone.rglob("*.png"))


def test_every_line_starts_a_program_that_is_there() -> None:
    commands = get_command(build()).commands
    for page in PAGES:
        for line in lines(page):
            program, *words = shlex.split(line)
            assert program in ("personae", "make", *SHELL), line
            if program == "make":
                target = f"\n{words[0]}:"
                assert target in (ROOT / "Makefile").read_text("utf-8")
            if program == "personae":
                assert words[0] in commands, line


def test_the_readme_lists_every_command() -> None:
    table = re.findall(r"^\| (`.*?`) \|", (ROOT / "README.md").read_text("utf-8"), re.M)
    listed = {name for row in table for name in re.findall(r"`(\w+)`", row)}
    assert listed == set(get_command(build()).commands)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) < 120


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text("utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)", text) + re.findall(r'src="([^"]+)"', text):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def anchors(page: Path) -> set[str]:
    """Return the names by which links reach the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_into_pages_find_their_heading(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s:]+)#([^)\s]+)\)", page.read_text("utf-8")):
        assert anchor in anchors(page.parent / target), f"{target}#{anchor}"


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_no_line_is_long(page: Path) -> None:
    """Tables are let off, whose rows cannot be wrapped."""
    rows = page.read_text("utf-8").splitlines()
    long = [row for row in rows if len(row) > COLUMNS and not row.startswith("|")]
    assert not long


def test_the_figures_of_the_results_are_those_of_the_logs() -> None:
    folder = ROOT / "docs"
    for section in (folder / "results.md").read_text("utf-8").split("\n## ")[1:]:
        logs = set(re.findall(r"\((measurements/\w+\.md)", section))
        assert logs, section.splitlines()[0]
        known = figures("".join((folder / log).read_text("utf-8") for log in logs))
        told = figures(re.sub(r"\]\([^)]*\)", "]", section))
        assert told <= known, (section.splitlines()[0], told - known)


def figures(text: str) -> set[str]:
    return set(re.findall(r"\d+(?:[.,]\d+)*", text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_named_in_prose_exist(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = set(re.findall(r"`(--[a-z][a-z-]+)", page.read_text("utf-8")))
    commands = get_command(build()).commands
    known = ""
    for command in ("train", "generate", "sheet", "demo", "init", "check", *sorted(commands)):
        if named - set(re.findall(r"--[a-z][a-z-]+", known)):
            run([command, "--help"])
            known += capsys.readouterr().out
    run(["--help"])
    known += capsys.readouterr().out
    assert named <= set(re.findall(r"--[a-z][a-z-]+", known))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_go_in_by_a_door(page: Path) -> None:
    """A reader imports from `personae` or from a room, and both show what is asked for."""
    for program in blocks(page, "python"):
        for node in ast.walk(ast.parse(program)):
            assert not isinstance(node, ast.Import) or "personae" not in ast.unparse(node)
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "personae":
                module = importlib.import_module(node.module)
                shown = getattr(module, "__all__", dir(module))  # errors is a plain module
                assert node.module.count(".") < 2, node.module
                assert {alias.name for alias in node.names} <= set(shown), node.module
    for room, name in re.findall(r"`personae\.(\w+)\.(\w+)[`(]", page.read_text("utf-8")):
        if room != "core":
            assert hasattr(importlib.import_module(f"personae.{room}"), name), name


def example(name: str) -> Any:
    """Return the plug-in of docs/adding.md whose class has this name."""
    (source,) = [
        code for code in blocks(ROOT / "docs" / "adding.md", "python") if f"class {name}(" in code
    ]
    module = types.ModuleType(f"docs_adding_{name}")
    sys.modules[module.__name__] = module  # settings classes look their fields up by module
    exec(compile(source, module.__name__, "exec"), vars(module))
    return getattr(module, name)


def test_the_technique_of_the_docs_keeps_the_contract(base: Family) -> None:
    shift = example("Shift")
    technique = shift(shift.Config(), base, generator_for(0))
    before = prediction(base)
    technique.inject()
    assert torch.equal(prediction(base), before)
    stir(technique)
    assert not torch.equal(prediction(base), before)
    technique.strength = 0.0
    assert torch.equal(prediction(base), before)
    technique.eject()
    assert torch.equal(prediction(base), before)
    assert bare(base)


def test_the_metric_of_the_docs_measures_what_it_says() -> None:
    board = np.indices((8, 8)).sum(axis=0) % 2 * 255
    greys = [board.astype(np.uint8), np.full((8, 8), 90, dtype=np.uint8)]
    drawn = [
        Sample(Image.fromarray(grey).convert("RGB"), "", "s", i) for i, grey in enumerate(greys)
    ]
    evidence = Evidence(drawn, [], [], identity=None, image_text=None)
    assert example("Sharpness")()(evidence).tolist() == [255, 0]


def test_the_encoder_of_the_docs_tells_colours_apart() -> None:
    encoder = example("MeanColour").load(None, HOST)
    red, green = (Image.new("RGB", (4, 4), colour) for colour in ("red", "lime"))
    rows = encoder.embed_images([red, green, red])
    assert np.allclose(np.linalg.norm(rows, axis=1), 1)
    assert encoder.similarity(rows, rows)[0] == pytest.approx([1, 0, 1], abs=1e-5)
    assert encoder.embed_images([]).shape == (0, 3)


def test_the_dataset_layout_of_the_docs_reads_names(tmp_path: Path) -> None:
    layout = example("NamesAreCaptions")()
    Image.new("RGB", (4, 4)).save(tmp_path / "a woman at the beach.png")
    assert not layout.matches(tmp_path)
    (tmp_path / "names-are-captions").touch()
    assert layout.matches(tmp_path)
    (reference,) = layout.read(tmp_path).references
    assert reference.caption == "a woman at the beach"


def test_the_format_of_the_docs_keeps_every_tensor(base: Family, tmp_path: Path) -> None:
    artifact, arrays = artifact_of(make("lora", base), base), example("Arrays")()
    file = arrays.write(artifact, tmp_path / "mira.npz")
    again = arrays.read(file, base)
    assert again.card == artifact.card
    assert {name: tensor.tolist() for name, tensor in again.tensors.items()} == {
        name: tensor.tolist() for name, tensor in artifact.tensors.items()
    }
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(ArtifactError, match="is damaged"):
        arrays.read(file, base)


def test_the_acceleration_of_the_docs_computes_the_same(base: Family) -> None:
    turned = example("TurnedLinears")
    before = prediction(base)
    chosen = {layer: [turned()] for layer in turned.modules(base).values()}
    assert chosen
    base.forwards.choose(False, chosen)
    try:
        with torch.no_grad():
            after = prediction(base)
    finally:
        base.forwards.remove()
    assert torch.allclose(before, after, atol=1e-4)


def test_the_suite_of_the_docs_is_one(tmp_path: Path) -> None:
    (text,) = [b for b in blocks(ROOT / "docs" / "adding.md", "toml") if "[[shots]]" in b]
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    assert [shot.id for shot in load_suite(tmp_path / "mine.toml").shots] == ["harbour", "woodcut"]


def test_the_guide_to_plug_ins_names_files_that_are_there() -> None:
    """Files of its tables and its prose: of the package, of the room `models`, or tests."""
    source, tests = ROOT / "src" / "personae", ROOT / "tests"
    text = (ROOT / "docs" / "adding.md").read_text("utf-8")
    for folder, example in re.findall(
        r"^\| .* \| `([a-z_/]+/)` \| .* \| `([\w/.]+)` \|$", text, re.M
    ):
        assert (source / folder / example).is_file(), example
        text = text.replace(f"`{example}`", "")
    for file in set(re.findall(r"`([\w/]+\.(?:py|toml))`", text)) - {"mine.toml", "shift.py"}:
        places = (ROOT / file, source / file, source / "models" / file, tests / file)
        assert any(place.is_file() for place in places), file
