"""`personae bases`: the base models that ship inside the package."""

from __future__ import annotations

from dataclasses import asdict

import typer
from rich.markup import escape
from rich.table import Table

from personae.cli.terminal import AsJson, Terminal
from personae.core.units import size


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(bases)


def bases(as_json: AsJson = False) -> None:
    """List the base models that need no download, with their sizes and training advice."""
    from personae.models.weights.description import describe_base
    from personae.models.weights.sources import embedded_bases

    terminal = Terminal(as_json)
    rows = {name: describe_base(folder) for name, folder in embedded_bases().items()}
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for title in ("name", "kind", "picture", "parameters", "on disk"):
        table.add_column(title)
    for name, row in rows.items():
        terminal.tell("base", name=name, **asdict(row))
        side = f"{row.resolution} px" if row.resolution else ""
        numbers = f"{row.parameters / 1e6:.1f} million"
        table.add_row(f"[bold]{escape(name)}[/]", row.kind, side, numbers, size(row.bytes))
    if rows:
        terminal.say(table)
    for name, row in rows.items():
        for technique, fields in row.recommended.items():
            advice = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in fields.items())
            terminal.say(f"[bold]{escape(name)}[/] advises for {escape(technique)}: {advice}")
    terminal.say(
        "Any other base is given by its diffusers folder, its hub id (owner/name) or its "
        ".safetensors file."
    )
