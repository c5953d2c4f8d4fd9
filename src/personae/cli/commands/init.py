"""`personae init`: write a `character.toml` beside the pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from personae.cli.terminal import AsJson, Terminal, tilde, typed


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(init)


def init(
    folder: Annotated[Path, typer.Argument(help="Folder of pictures.")],
    name: Annotated[
        str | None, typer.Option(help="What prompts call the character. Default: the folder's.")
    ] = None,
    class_noun: Annotated[
        str | None, typer.Option(help="What it is: girl, robot, cat. Default: from the captions.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a character.toml that says who is in a folder of pictures."""
    from personae.characters.scaffold import init_character

    terminal = Terminal(as_json)
    path = init_character(folder, name, class_noun, force=force)
    terminal.tell("written", path=path)
    terminal.say(f"Wrote {escape(tilde(path))}. Look it over, then")
    terminal.command(f"personae check {typed(folder)}")
