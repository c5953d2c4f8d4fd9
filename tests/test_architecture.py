"""The shape of the code: who may import whom, how long files are, what is named where."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import personae
from personae.families.base import Family
from personae.registry import discover
from personae.techniques.base import Technique

ROOT = Path(personae.__file__).parent
FILES = sorted(path for path in ROOT.rglob("*.py"))
MAX_LINES = 300
MAX_FUNCTION_LINES = 60

# The layers of the package; a module may import its own layer and those below it. A folder of
# plug-ins is named by its folder.
GROUND = {
    "errors", "config", "registry", "devices", "atomic", "recommended", "events", "naming",
    "side_by_side", "wide_products",
}  # fmt: skip
MATTER = {
    "noise_path", "hooks", "character", "character_file", "references", "cropping", "duplicates",
    "holding_out", "sidecars", "caption_tables", "pictures", "caches", "datasets", "findings",
    "pretrained", "forwards", "frozen_formats", "activations",
}  # fmt: skip
PLUG_INS = {"families", "techniques", "metrics", "encoders", "acceleration"}
FACES = {"cli", "studio", "__main__"}
COMPARISON = {
    "study", "cells", "cell_process", "execution", "cluster", "cluster_worker", "presentations",
    "switching", "curves", "measures", "rows", "comparison", "claims", "limits", "verdict",
    "report", "formats", "benchmark",
}  # fmt: skip

# Modules that may say the name of a technique: formats are other programs' words for one each,
# low_rank extracts and resizes LoRA files, settings hold the default of a run, a benchmark has the
# recipes of other programs' scripts.
NAMING = {"techniques": {"formats", "low_rank", "settings", "benchmark"}, "families": {"formats"}}

# Ground on which a heavy library may not be imported at the top, so that `--help` is quick.
LIGHT = {"__init__", "__main__", "errors", "config", "registry", "recommended", "cli"}
HEAVY = {"torch", "diffusers", "transformers", "matplotlib", "scipy", "peft", "numpy"}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def imports(node: ast.AST) -> Iterator[str]:
    """Yield what is imported, relative to the package where it is ours ("" is its root)."""
    for part in ast.walk(node):
        if isinstance(part, ast.Import):
            yield from (alias.name for alias in part.names)
        elif isinstance(part, ast.ImportFrom):
            assert part.level == 0, f"relative import of {part.module}"
            module = part.module or ""
            for alias in part.names:
                full = ROOT.joinpath(*module.split(".")[1:], alias.name)
                is_module = full.with_suffix(".py").is_file() or full.is_dir()
                inside = module.split(".")[0] == "personae"
                yield f"{module}.{alias.name}" if inside and is_module else module


def own_imports(path: Path) -> list[str]:
    """Return the modules of personae that a file imports, without the leading package name."""
    return [
        name.removeprefix("personae").lstrip(".")
        for name in imports(tree(path))
        if name.split(".")[0] == "personae"
    ]


def layer(module: str) -> int:
    top = module.split(".")[0]
    for height, members in enumerate((GROUND, MATTER, PLUG_INS)):
        if top in members:
            return height
    return 5 if top in FACES else 4 if top in COMPARISON else 3


def test_a_file_imports_its_own_layer_or_those_below() -> None:
    upward = [
        f"{dotted(path)} (layer {layer(dotted(path))}) imports {name} (layer {layer(name)})"
        for path in FILES
        for name in own_imports(path)
        if layer(name) > layer(dotted(path))
    ]
    assert not upward


def test_the_package_root_is_not_imported_from_within() -> None:
    assert not [dotted(path) for path in FILES if "" in own_imports(path)]


@cache
def plug_ins() -> dict[str, set[str]]:
    """Return {folder: modules that define a plug-in}, read from the source alone."""
    return {
        base.parent.name: {
            dotted(path)
            for path in base.parent.glob("*.py")
            if path != base and any(map(sets_a_name, ast.walk(tree(path))))
        }
        for base in ROOT.glob("*/base.py")
    }


def sets_a_name(node: ast.AST) -> bool:
    """Say whether a node is a class whose body sets `name` to a text, as plug-ins do."""
    return isinstance(node, ast.ClassDef) and any(
        isinstance(line, ast.Assign)
        and isinstance(line.value, ast.Constant)
        and any(isinstance(target, ast.Name) and target.id == "name" for target in line.targets)
        for line in node.body
    )


def test_a_plug_in_imports_no_other_plug_in() -> None:
    """Plug-ins know `base.py` of any folder, and support modules that hold no plug-in."""
    everyone = set().union(*plug_ins().values())
    met = [
        f"{dotted(path)} imports {name}"
        for path in FILES
        if dotted(path) in everyone
        for name in own_imports(path)
        if name in everyone - {dotted(path)}
    ]
    assert not met


def test_the_check_of_plug_ins_sees_the_ones_that_are_discovered() -> None:
    for folder, kind in (("techniques", Technique), ("families", Family)):
        modules = {plug_in.__module__ for plug_in in discover(folder, kind).values()}
        assert {f"personae.{name}" for name in plug_ins()[folder]} == modules


def test_files_are_short() -> None:
    lengths = {dotted(path): len(path.read_text("utf-8").splitlines()) for path in FILES}
    assert not {name: length for name, length in lengths.items() if length > MAX_LINES}


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    return (node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef))


def test_functions_are_short() -> None:
    """Signatures are not counted: those of commands declare the options one to a line."""
    long = [
        f"{dotted(path)}.{node.name} has {node.end_lineno - node.body[0].lineno + 1} lines"
        for path in FILES
        for node in functions(path)
        if node.end_lineno - node.body[0].lineno >= MAX_FUNCTION_LINES
    ]
    assert not long


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of the strings of a file that are not documentation."""
    prose = {
        id(node.value)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node.lineno, node.value


def is_torch(node: ast.Attribute) -> bool:
    value = node.value
    while isinstance(value, ast.Attribute):
        value = value.value
    return isinstance(value, ast.Name) and value.id == "torch"


def test_devices_are_named_in_one_place() -> None:
    elsewhere = [path for path in FILES if dotted(path) != "devices"]
    named = [
        f"{dotted(path)}:{line} '{text}'"
        for path in elsewhere
        for line, text in strings(path)
        if text in ("cuda", "cpu", "mps", "meta") or text.startswith("cuda:")
    ]
    asked = [
        f"{dotted(path)}:{node.lineno} {ast.unparse(node)}"
        for path in elsewhere
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and node.attr in ("cuda", "mps") and is_torch(node)
    ]
    assert not named + asked


def test_the_library_does_not_print_swallow_run_pickles_or_seed_the_world() -> None:
    assert not [f"{dotted(path)}:{where}" for path in FILES for where in misdeeds(path)]


def misdeeds(path: Path) -> Iterator[str]:
    for node in ast.walk(tree(path)):
        match node:
            case ast.Call(func=called):
                name = ast.unparse(called)
                words = {word.arg: ast.unparse(word.value) for word in node.keywords}
                unsafe = name == "torch.load" and words.get("weights_only") != "True"
                seeds = name == "torch.manual_seed" and dotted(path) != "devices"
                forbidden = ("print", "pickle.load", "pickle.loads", "eval", "exec")
                prints_rightly = name == "print" and layer(dotted(path)) == layer("cli")
                if unsafe or seeds or (name in forbidden and not prints_rightly):
                    yield f"{node.lineno} {name}"
            case ast.ExceptHandler(type=None):
                yield f"{node.lineno} bare except"
            case ast.Global():
                yield f"{node.lineno} global"


@pytest.mark.parametrize(("folder", "kind"), [("techniques", Technique), ("families", Family)])
def test_nothing_outside_its_folder_asks_for_a_plug_in(folder: str, kind: type) -> None:
    names = set(discover(folder, kind))
    asked = [
        f"{dotted(path)}:{line} '{text}'"
        for path in FILES
        if dotted(path).split(".")[0] not in {folder} | NAMING[folder]
        for line, text in strings(path)
        if text in names
    ]
    assert not asked


def test_light_modules_import_no_heavy_library_at_the_top() -> None:
    heavy = [
        f"{dotted(path)} imports {name}"
        for path in FILES
        if dotted(path).split(".")[0] in LIGHT
        for node in tree(path).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in imports(node)
        if name.split(".")[0] in HEAVY
    ]
    assert not heavy


def test_everything_public_is_documented_and_typed() -> None:
    assert not [dotted(path) for path in FILES if not ast.get_docstring(tree(path))]
    untyped = [
        f"{dotted(path)}.{node.name}"
        for path in FILES
        for node in functions(path)
        if node.returns is None
        or any(
            argument.annotation is None and argument.arg not in ("self", "cls")
            for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
        )
    ]
    assert not untyped


def test_vague_module_names_do_not_exist() -> None:
    vague = {"utils", "util", "helpers", "common", "manager", "misc", "tools"}
    assert not {path.stem for path in FILES} & vague
