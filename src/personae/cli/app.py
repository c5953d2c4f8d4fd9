"""The command line's frame: finds the commands, and turns refusals into one line and a code.

A command is a module of `commands` with `register(app)`. Heavy libraries are imported inside the
commands, so that `personae --help` answers at once.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, Any, cast

import typer

from personae.cli import commands
from personae.cli.terminal import clean, clean_outputs, flush_output, silence_output
from personae.core.unforeseen import in_words
from personae.errors import PersonaeError

INTERRUPTED = 130  # 128 + SIGINT, as shells count it
# Typer brings its own click or takes the one installed; its base class is found from here alone.
COMMAND_LINE_ERROR = cast(type[Exception], typer.BadParameter.__mro__[2])
ORDER = ("demo", "init", "check", "train", "generate", "sheet", "inspect", "bases")


def build() -> typer.Typer:
    """Return the application with every command."""
    app = typer.Typer(
        name="personae",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    app.callback()(_about)
    names = sorted(module.name for module in pkgutil.iter_modules(commands.__path__))
    first = [name for name in ORDER if name in names]
    for name in first + [name for name in names if name not in ORDER]:
        module = importlib.import_module(f"{commands.__name__}.{name}")
        if hasattr(module, "register"):
            module.register(app)
    return app


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 used wrongly.

    Args:
        arguments: without the program's name; by default those of the process.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    # Wanted only after something failed, so it may be added anywhere to the line just typed.
    debug = "--debug" in given
    _quieten()
    clean_outputs()
    try:
        with warnings.catch_warnings():
            if not (debug or sys.warnoptions):
                warnings.simplefilter("ignore")
            words = [word for word in given if word != "--debug"]
            code = build()(words, prog_name="personae", standalone_mode=False)
        flush_output()
    except PersonaeError as error:
        if debug:
            raise
        return _refuse(str(error), error.exit_code)
    except COMMAND_LINE_ERROR as error:
        return _explain(error)
    except (KeyboardInterrupt, typer.Abort):
        return _refuse("interrupted", INTERRUPTED)
    except SystemExit as end:
        code = end.code
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        silence_output()
        return 1
    except Exception as error:  # what no command expected
        if debug:
            raise
        return _refuse(in_words(error, "the command with --debug shows where it arose"), 1)
    return code if isinstance(code, int) else 0


def _refuse(reason: str, code: int) -> int:
    print(f"personae: {clean(' '.join(reason.splitlines()))}", file=sys.stderr)
    return code


def _explain(error: Any) -> int:
    """Say what is wrong with a command line: on one line, or with the help where words lack."""
    reason = " ".join(error.format_message().split()).rstrip(".")
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "personae"
    if reason and "Usage:" not in reason:
        return _refuse(f"{reason}; see `{command} --help`", error.exit_code)
    error.show()
    code: int = error.exit_code
    return code


def _print_version(wanted: bool) -> None:
    if wanted:
        from personae.version import __version__

        print(f"personae {__version__}")
        raise typer.Exit


def _about(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show where an error arose; may stand anywhere.")
    ] = False,
) -> None:
    """Teach a diffusion model one character and keep it the same everywhere.

    [bold]personae demo[/] shows all of it on a shipped character, without a network.
    """


def _quieten() -> None:
    """Keep the libraries' chatter off the terminal; our own warnings pass."""
    for library in ("TRANSFORMERS", "DIFFUSERS"):
        os.environ.setdefault(f"{library}_VERBOSITY", "error")
