"""`personae unpack`: what is in a `.persona` file, as a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from personae.cli.terminal import AsJson, Terminal, tilde
from personae.core.files import stem_of


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(unpack)


def unpack(
    file: Annotated[Path, typer.Argument(help="A .persona file.")],
    out: Annotated[Path | None, typer.Option(help="Folder. Default: the file's name.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check a packed character and write its files into a new folder."""
    terminal = Terminal(as_json)
    from personae.formats.persona import unpack as unpacked

    folder = out or Path(stem_of(file))
    manifest = unpacked(file, folder)
    terminal.tell("unpacked", path=folder, manifest=manifest.model_dump(mode="json"))
    terminal.say(
        f"{escape(manifest.name)}, a {escape(manifest.class_noun)}: "
        f"[bold]{escape(tilde(folder))}[/]"
    )
    for label, text in (("licence", manifest.licence), ("consent", manifest.consent)):
        if text:
            terminal.say(f"  [dim]{label}:[/] {escape(text)}")
    for each in manifest.artifacts:
        terminal.say(
            f"  {each.technique} for {escape(each.base)}, strength {each.strength}: "
            f"{escape(tilde(folder / each.file))}"
        )
