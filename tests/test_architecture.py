"""The shape of the code: who may import whom, how long files are, what is named where."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import personae
from personae.characters.dataset import DatasetLayout
from personae.core.registry import PlugIn, discover
from personae.evaluation.metric import Metric
from personae.models.acceleration.acceleration import Acceleration
from personae.models.family import Family
from personae.techniques.technique import Technique
from personae.vision.encoder import Encoder

ROOT = Path(personae.__file__).parent
FILES = sorted(path for path in ROOT.rglob("*.py"))
MAX_LINES = 300
MAX_FUNCTION_LINES = 40

# The rooms of the package and what each may import besides `core`, itself and the lone files.
MATTER = {"models", "characters", "vision"}
LEARNT = {"models", "techniques", "artifacts"}
ROOMS: dict[str, set[str]] = {
    "core": set(),
    "vision": set(),
    "characters": set(),
    "models": set(),
    "techniques": {"models"},
    "artifacts": {"techniques", "models"},
    "formats": LEARNT,
    "generation": LEARNT,
    "evaluation": {"generation"} | MATTER,
    "training": {"evaluation", "generation", "characters"} | LEARNT,
    "study": {"training", "evaluation", "generation", "techniques"} | MATTER,
    "reports": {"study", "training", "evaluation", "artifacts", "characters"},
}
ROOMS["benchmark"] = set(ROOMS)
ROOMS["cli"] = set(ROOMS)

# Single files that may import one room more than their own room may.
BESIDES = {"formats.persona": {"characters"}}

# Sub-rooms of one room that may meet; all others import only their own room and the rooms below.
SUB_ROOMS = {
    ("formats.lora", "formats.embeddings"),
    ("models.acceleration", "models.weights"),
    ("models.families", "models.weights"),
    ("training.memory", "training.optim"),
}
LONE = {"", "__main__", "errors", "version"}

# Places that may say the name of a plug-in: formats are other programs' words for one each, LoRA
# has an algebra of its own, the settings of a run hold its default, a benchmark has the recipes of
# other programs' scripts.
NAMING = {
    Technique: (
        "techniques", "formats", "benchmark", "training.settings",
        "artifacts.low_rank", "artifacts.merge", "artifacts.extract", "artifacts.bake",
    ),
    Family: ("models.families", "formats"),
}  # fmt: skip

# Ground on which a heavy library may not be imported at the top, so that `--help` is quick.
LIGHT = {
    "__init__", "__main__", "errors", "version", "cli", "models.recommended",
    "core.config", "core.registry", "core.doors", "core.device_names", "core.units",
    "techniques.settings", "techniques.known", "techniques.technique_config",
    "training.settings", "training.schedule", "training.optim.names",
    "evaluation.settings", "generation.settings",
    *(f"{room}.__init__" for room in ROOMS),
}  # fmt: skip
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


def test_every_file_is_in_a_room() -> None:
    lost = [name for name in map(dotted, FILES) if room(name) not in ROOMS]
    advice = "put each into the room whose subject it has (docs/architecture.md)"
    assert not [name for name in lost if name.removesuffix("__init__") not in LONE], advice


def room(module: str) -> str:
    return module.split(".")[0]


def allowed(module: str) -> set[str]:
    return ROOMS[room(module)] | BESIDES.get(module, set()) | {room(module), "core"} | LONE


def test_a_file_imports_its_own_room_or_those_that_its_room_may() -> None:
    wrong = [
        f"{dotted(path)} imports {name}: {room(dotted(path))} may not import {room(name)}"
        for path in FILES
        if room(dotted(path)) in ROOMS
        for name in own_imports(path)
        if room(name) not in allowed(dotted(path))
    ]
    assert not wrong, "move what is shared into a room that both may import"


def sub_room(module: str) -> str:
    """Return the folder inside a room that holds a module, or "" if it lies in the room itself."""
    parts = module.split(".")
    return ".".join(parts[:2]) if len(parts) > 1 and ROOT.joinpath(*parts[:2]).is_dir() else ""


def test_sub_rooms_meet_only_where_the_table_says() -> None:
    wrong = [
        f"{dotted(path)} imports {name}"
        for path in FILES
        if sub_room(dotted(path))
        for name in own_imports(path)
        if room(name) == room(dotted(path))
        and sub_room(name) not in ("", sub_room(dotted(path)))
        and (sub_room(dotted(path)), sub_room(name)) not in SUB_ROOMS
    ]
    assert not wrong, "move what both need into the room above, or name the pair in SUB_ROOMS"


def test_no_files_import_each_other_in_a_circle() -> None:
    arrows = {dotted(path): set(own_imports(path)) for path in FILES}
    while leaves := {name for name, met in arrows.items() if not met & arrows.keys()}:
        arrows = {name: met for name, met in arrows.items() if name not in leaves}
    assert not arrows, "move what both sides need into a file of its own"


def test_doors_are_for_guests() -> None:
    """Inside the package, a file imports the file that defines a name, not a room's `__init__`."""
    through = [
        f"{dotted(path)} imports {alias.name} from {node.module}"
        for path in FILES
        if path.name != "__init__.py"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name in shown(node.module or "")
    ]
    assert not through, "import the name from the file that defines it"


@cache
def shown(module: str) -> set[str]:
    """Return what the door of the package or of a room shows, besides whole modules."""
    if module != "personae" and module.removeprefix("personae.") not in ROOMS:
        return set()
    door = import_module(module)
    names = getattr(door, "__all__", [])
    return {name for name in names if not isinstance(getattr(door, name), ModuleType)}


def package_of(node: ast.AST) -> str | None:
    """Return the package of the plug-ins, if a node is the class of a contract."""
    for line in node.body if isinstance(node, ast.ClassDef) else []:
        if isinstance(line, ast.AnnAssign) and ast.unparse(line.target) == "package" and line.value:
            return ast.literal_eval(line.value).removeprefix("personae.")
    return None


@cache
def plug_ins() -> dict[str, set[str]]:
    """Return {package: modules that define a plug-in}, read from the source alone."""
    contracts = {
        package: path
        for path in FILES
        for node in ast.walk(tree(path))
        if (package := package_of(node)) is not None
    }
    return {
        package: {
            dotted(path)
            for path in ROOT.joinpath(*package.split(".")).rglob("*.py")
            if path != contract and any(map(sets_a_name, ast.walk(tree(path))))
        }
        for package, contract in contracts.items()
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
    """Plug-ins know the contract, and support modules that hold no plug-in."""
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
    for kind in (Technique, Family, Metric, Encoder, DatasetLayout, Acceleration):
        modules = {plug_in.__module__ for plug_in in discover(kind).values()}
        known = plug_ins()[kind.package.removeprefix("personae.")]
        assert modules <= {f"personae.{name}" for name in known}


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
    elsewhere = [path for path in FILES if room(dotted(path)) != "core"]
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
                seeds = name == "torch.manual_seed" and room(dotted(path)) not in (
                    "core",
                    "devices",
                )
                forbidden = ("print", "pickle.load", "pickle.loads", "eval", "exec")
                prints_rightly = name == "print" and room(dotted(path)) == "cli"
                if unsafe or seeds or (name in forbidden and not prints_rightly):
                    yield f"{node.lineno} {name}"
            case ast.ExceptHandler(type=None):
                yield f"{node.lineno} bare except"
            case ast.Global():
                yield f"{node.lineno} global"


@pytest.mark.parametrize("kind", [Technique, Family])
def test_nothing_outside_its_place_asks_for_a_plug_in(kind: type[PlugIn]) -> None:
    names = set(discover(kind))
    asked = [
        f"{dotted(path)}:{line} '{text}'"
        for path in FILES
        if not f"{dotted(path)}.".startswith(tuple(f"{place}." for place in NAMING[kind]))
        for line, text in strings(path)
        if text in names
    ]
    assert not asked, "ask the contract, or move the line to the plug-in"


def light(module: str) -> bool:
    return any(f"{module}.".startswith(f"{place}.") for place in LIGHT)


def test_light_modules_import_no_heavy_library_at_the_top() -> None:
    heavy = [
        f"{dotted(path)} imports {name}"
        for path in FILES
        if light(dotted(path))
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


TESTS = Path(__file__).parent
# Folders of tests without a twin: what runs over all plug-ins of a kind, what several tests
# build upon, and files as other tools wrote them.
UNMIRRORED = {"contracts", "worlds", "formats/golden"}


def test_tests_lie_in_folders_that_the_package_has() -> None:
    folders = {path.parent.relative_to(TESTS).as_posix() for path in TESTS.rglob("*.py")}
    lost = {folder for folder in folders if not (ROOT / folder).is_dir()}
    assert lost == UNMIRRORED, "put a test of src/personae/a/b.py into tests/a/"


def test_a_test_named_after_a_file_lies_where_the_file_lies() -> None:
    sources = {path.relative_to(ROOT).with_suffix("").as_posix() for path in FILES}
    for room_folder in {path.parent.relative_to(ROOT) for path in FILES}:  # a test of a whole room
        sources |= {str(room_folder), str(room_folder / room_folder.name)}
    stems = {Path(source).name for source in sources}
    astray = []
    for path in TESTS.rglob("test_*.py"):
        twin = path.relative_to(TESTS).with_name(path.name.removeprefix("test_")).with_suffix("")
        if twin.parts[0] not in UNMIRRORED and twin.name in stems and str(twin) not in sources:
            astray.append(f"{path.relative_to(TESTS)}: there is no src/personae/{twin}.py")
    assert not astray, "move the test to tests/a/test_b.py for src/personae/a/b.py, or rename it"


PAGE = ROOT.parents[1] / "docs" / "architecture.md"


def table_rows(heading: str) -> list[list[str]]:
    """Return the cells of each row of the table below a heading of docs/architecture.md."""
    section = PAGE.read_text("utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (.*) \|$", section, re.M)
    return [row.split(" | ") for row in rows[1:]]  # without the head


def in_code(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def test_the_page_has_the_table_of_imports() -> None:
    told, above = {}, set()
    for name, _, _, may in table_rows("The rooms"):
        (room_name,) = in_code(name)
        named = set(in_code(may))
        told[room_name] = above - named - {"core"} if may.startswith("all above") else named
        above.add(room_name)
    asked = {name: met - {"core", "benchmark"} for name, met in ROOMS.items()}
    told["cli"].discard("benchmark")
    assert told == asked, "docs/architecture.md and ROOMS must say the same"


def test_the_page_names_the_exceptions() -> None:
    text = " ".join(PAGE.read_text("utf-8").split())
    named = re.findall(r"`([\w/.]+)` imports `([\w/]+)`", text)
    pairs = {tuple(name.removesuffix(".py").replace("/", ".") for name in pair) for pair in named}
    besides = {(file, name) for file, names in BESIDES.items() for name in names}
    assert pairs == besides | SUB_ROOMS, "docs/architecture.md, BESIDES and SUB_ROOMS differ"


def test_the_way_of_a_picture_leads_through_functions_that_are_there() -> None:
    for _, file, function, _ in table_rows("The way of a picture"):
        (path,), (name,) = in_code(file), in_code(function)
        body: list[ast.stmt] = tree(ROOT / path).body
        for part in name.split("."):
            found = [node for node in body if getattr(node, "name", None) == part]
            assert found, f"docs/architecture.md: {path} has no {name}"
            body = getattr(found[0], "body", [])


def test_the_page_says_where_to_look_for_twenty_things() -> None:
    rows = table_rows("I want to change X")
    assert len(rows) >= 20
    for what, where in rows:
        places = [place for place in in_code(where) if "/" in place]
        assert places, what
        missing = [place for place in places if not (ROOT / place).exists()]
        assert not missing, f"docs/architecture.md: {what}"
