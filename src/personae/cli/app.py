"""The command line's frame: finds the commands, and turns refusals into one line and a code.

A command is a module of this folder with `register(app)`. Heavy libraries are imported inside the
commands, so that `personae --help` answers at once.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated

import typer

from personae import cli
from personae.errors import PersonaeError

INTERRUPTED = 130  # 128 + SIGINT, as shells count it
ORDER = ("demo", "init", "check", "train", "generate", "sheet", "inspect", "bases")


def build() -> typer.Typer:
    """Return the application with every command of this folder."""
    app = typer.Typer(
        name="personae",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    app.callback()(_about)
    names = sorted(module.name for module in pkgutil.iter_modules(cli.__path__))
    first = [name for name in ORDER if name in names]
    for name in first + [name for name in names if name not in ORDER]:
        module = importlib.import_module(f"{cli.__name__}.{name}")
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
    try:
        with warnings.catch_warnings():
            if not (debug or sys.warnoptions):
                warnings.simplefilter("ignore")
            build()([word for word in given if word != "--debug"], prog_name="personae")
    except PersonaeError as error:
        if debug:
            raise
        print(f"personae: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("personae: interrupted", file=sys.stderr)
        return INTERRUPTED
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"personae {version('personae')}")
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
