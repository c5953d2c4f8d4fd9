"""`personae pack`: a character with all that belongs to it, as one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from personae.cli.cast_options import StrengthOption, pairs
from personae.cli.output_files import refuse_overwriting
from personae.cli.terminal import AsJson, Terminal, tilde
from personae.core.units import count, size
from personae.errors import UsageError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(pack)


def pack(
    out: Annotated[Path, typer.Argument(help="File to write, such as mira.persona.")],
    cast: Annotated[
        list[str] | None,
        typer.Option("--cast", metavar="NAME=FILE", help="An artifact; repeat for several."),
    ] = None,
    strength: StrengthOption = None,
    character: Annotated[
        Path | None, typer.Option(help="Folder with the pictures it was taught from.")
    ] = None,
    preview: Annotated[list[Path] | None, typer.Option(help="A drawn picture; repeat.")] = None,
    licence: Annotated[str, typer.Option(help="Terms of use. Default: the folder's.")] = "",
    consent: Annotated[
        str, typer.Option(help="Who agreed to the use of a living person's likeness.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Put a character's pictures, artifacts, previews and papers into one file to hand on."""
    terminal = Terminal(as_json)
    from personae.characters.character import Character
    from personae.formats.persona import Contents, read_manifest, with_ending
    from personae.formats.persona import pack as packed

    files, strengths = pairs(cast, "--cast"), pairs(strength, "--strength")
    unknown = sorted(set(strengths) - set(files))
    if unknown:
        raise UsageError(f"a strength is given for '{unknown[0]}', which no --cast names")
    refuse_overwriting(with_ending(out))
    contents = Contents(
        artifacts={Path(file): strengths.get(name, "1") for name, file in files.items()},
        character=Character.open(character) if character else None,
        previews=preview or [],
        licence=licence,
        consent=consent,
    )
    path = packed(contents, out)
    manifest = read_manifest(path)
    terminal.tell("packed", path=path, manifest=manifest.model_dump(mode="json"))
    terminal.say(
        f"{escape(manifest.name)}: {count(len(manifest.files), 'file')} in "
        f"[bold]{escape(tilde(path))}[/] ({size(path.stat().st_size)})"
    )
