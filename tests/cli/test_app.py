"""The frame of the command line: quick help, one-line refusals, exit codes, completion."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.main import get_command

from personae.cli.app import build, run
from personae.errors import CharacterError

COMMANDS = sorted(get_command(build()).commands)
HEAVY = ("torch", "diffusers", "transformers", "numpy", "PIL", "pydantic")


def test_help_imports_no_heavy_library() -> None:
    code = (
        "import sys\nfrom personae.cli.app import run\nassert run(['--help']) == 0\n"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_wrong_options_of_a_training_are_refused_before_torch_is_imported(tmp_path: Path) -> None:
    """It takes seconds to import, and what is wrong can be told without it."""
    wrong = {
        "--stepz 3": "--steps",
        "--steps 0": "greater than or equal to 1",
        "--technique lra": "Did you mean 'lora'",
        "--lora-rank 0": "'rank' is 0",
        "--technique lora+lora": "name each technique once",
        "--hypernetwork-max-ratio 2": "has no effect with technique 'lora'",
        "--optimizer adma": "Did you mean 'adamw'",
        "--precision fp23": "must be auto, fp32",
        "--device gpu": "must be one of auto, cuda",
        "--memory lots": "no amount of memory",
        "": "nobody: does not exist",
    }
    code = f"""
import sys
from personae.cli.app import run
for options in {list(wrong)}:
    code = run(["train", {str(tmp_path / "nobody")!r}, *options.split()])
    print(code, "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["2 False"] * (len(wrong) - 1) + ["1 False"]
    for line, words in zip(done.stderr.splitlines(), wrong.values(), strict=True):
        assert words in line


def test_the_verbs_of_the_readme_are_commands() -> None:
    verbs = {"init", "check", "train", "generate", "sheet", "inspect", "bases", "demo"}
    assert verbs <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == 0
    assert f"personae {command}" in capsys.readouterr().out


def test_a_refusal_is_one_line_and_code_1(refused: Callable[..., str]) -> None:
    assert "nowhere: does not exist" in refused("check", "nowhere", code=1)


def test_wrong_usage_is_one_line_and_code_2(refused: Callable[..., str]) -> None:
    assert "no prompt" in refused("generate")


def test_debug_lets_the_error_through_wherever_it_stands() -> None:
    with pytest.raises(CharacterError):
        run(["check", "nowhere", "--debug"])


def test_a_mistyped_option_or_command_is_refused_with_the_nearest(
    refused: Callable[..., str],
) -> None:
    line = refused("train", "--lora-rnk", "4")
    assert "--lora-rank" in line
    assert line.endswith("see `personae train --help`")
    assert "Did you mean 'train'?" in refused("trian")


def test_a_value_of_the_wrong_kind_is_one_line(refused: Callable[..., str]) -> None:
    assert "'--steps'" in refused("generate", "x", "--steps", "many")


def test_a_file_that_the_system_refuses_is_told_in_one_line(here: Path) -> None:
    closed = here / "closed"
    closed.mkdir()
    child = os.fork()
    if child == 0:
        code = 3
        try:
            with (here / "told.txt").open("w") as sys.stderr:
                closed.chmod(0)
                if os.geteuid() == 0:
                    os.setuid(65534)  # root may read everything; "nobody" may not
                code = run(["inspect", "closed/mira.png"])
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 1
    assert (here / "told.txt").read_text() == (
        "personae: closed/mira.png: permission denied; check the path and its permissions\n"
    )


def test_nothing_at_all_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    told = capsys.readouterr()
    assert "Usage: personae" in told.out + told.err


def test_a_reader_that_leaves_early_is_no_error() -> None:
    line = f"{shlex.quote(sys.executable)} -m personae --help | head -c 1"
    done = subprocess.run(line, shell=True, capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("personae 0.")


def test_the_shell_completes_commands() -> None:
    words = {
        "_PERSONAE_COMPLETE": "complete_bash",
        "COMP_WORDS": "personae gen",
        "COMP_CWORD": "1",
        "PATH": os.environ["PATH"],
    }
    script = Path(sys.executable).with_name("personae")
    done = subprocess.run([script], env=words, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["generate"]
