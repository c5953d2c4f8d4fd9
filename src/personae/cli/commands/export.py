"""`personae export`: an artifact as a file of another tool."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from personae.cli.cast_options import quiet_libraries
from personae.cli.output_files import refuse_overwriting
from personae.cli.terminal import AsJson, Terminal, tilde
from personae.errors import UsageError

if TYPE_CHECKING:
    from personae.artifacts.card import Card


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(export)


def export(
    artifact: Annotated[Path | None, typer.Argument(help="An artifact of personae.")] = None,
    to: Annotated[
        str | None, typer.Option(help="Format; left out, the formats that fit are listed.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="File or folder to write. Default: beside the artifact."),
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="Base model. Default: the one it was trained on.")
    ] = None,
    preview: Annotated[
        Path | None, typer.Option(help="Picture that A1111 shows for the file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write an artifact as a file that other tools open.

    A1111, ComfyUI, InvokeAI, SwarmUI, kohya's scripts, diffusers and peft; each format says which.
    """
    terminal = Terminal(as_json)
    from personae.artifacts.artifact import Artifact
    from personae.core.registry import lookup
    from personae.formats.format import Format, default_target, export_file, files_written
    from personae.models.load import load_base

    loaded = Artifact.load(artifact) if artifact is not None else None
    if to is None:
        show_formats(terminal, loaded.card if loaded else None)
        return
    if artifact is None or loaded is None:
        raise UsageError("no artifact; name the file to export")
    kind = lookup(Format, to)
    target = out or default_target(artifact, kind)
    written = files_written(target, kind)
    for each in written:
        refuse_overwriting(each)
    quiet_libraries()
    with terminal.waiting("writing"):
        chosen = load_base(base, precision="fp32") if base else None
        path = export_file(loaded, to, target, chosen, preview=preview)
    terminal.tell(
        "exported", path=path, format=to, readers=kind.readers, not_readers=kind.not_readers
    )
    terminal.say(f"{kind.title}: [bold]{escape(tilde(path))}[/]")
    shown = [each.name for each in written[1:] if each.exists()]
    if shown:
        terminal.say(f"  shown by A1111 and InvokeAI: {escape(', '.join(shown))}")
    show_readers(terminal, kind.readers, kind.not_readers)


def show_formats(terminal: Terminal, card: Card | None) -> None:
    """List the formats that can carry the artifact of `card`, or all of them."""
    from personae.formats.format import formats, formats_for

    for name, each in (formats() if card is None else formats_for(card)).items():
        terminal.tell("format", name=name, title=each.title, readers=each.readers)
        terminal.say(f"[bold]{name}[/]  {each.title} [dim]({', '.join(each.techniques)})[/]")
        show_readers(terminal, each.readers, each.not_readers)


def show_readers(terminal: Terminal, readers: Sequence[str], not_readers: Sequence[str]) -> None:
    """Say which tools open a file and which do not."""
    terminal.say(f"  read by: {escape(', '.join(readers))}")
    if not_readers:
        terminal.say(f"  [dim]not by: {escape('; '.join(not_readers))}[/]")
