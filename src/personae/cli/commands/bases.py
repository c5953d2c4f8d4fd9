"""`personae bases`: the base models that ship inside the package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer
from rich.markup import escape
from rich.table import Table

from personae.cli.terminal import AsJson, Terminal
from personae.core.tensor_header import read_tensor_header
from personae.core.units import size


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(bases)


def bases(as_json: AsJson = False) -> None:
    """List the base models that need no download, with their sizes and training advice."""
    from personae.models.weights.sources import embedded_bases

    terminal = Terminal(as_json)
    rows = {name: describe(folder) for name, folder in embedded_bases().items()}
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for title in ("name", "kind", "picture", "parameters", "on disk"):
        table.add_column(title)
    for name, row in rows.items():
        terminal.tell("base", name=name, **row)
        side = f"{row['resolution']} px" if row["resolution"] else ""
        numbers = f"{row['parameters'] / 1e6:.1f} million"
        table.add_row(f"[bold]{escape(name)}[/]", row["kind"], side, numbers, size(row["bytes"]))
    if rows:
        terminal.say(table)
    for name, row in rows.items():
        for technique, fields in row["recommended"].items():
            advice = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in fields.items())
            terminal.say(f"[bold]{escape(name)}[/] advises for {escape(technique)}: {advice}")
    terminal.say(
        "Any other base is given by its diffusers folder, its hub id (owner/name) or its "
        ".safetensors file."
    )


def describe(folder: Path) -> dict[str, Any]:
    """Return kind, resolution in pixels, parameters, bytes and training advice of a base.

    The advice is what `personae.toml` in its folder recommends for each technique.
    """
    from personae.core.config import read_toml

    advice = folder / "personae.toml"
    files = sorted(folder.rglob("*.safetensors"))
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    return {
        "kind": index.get("_class_name", ""),
        "resolution": _resolution(folder),
        "parameters": sum(read_tensor_header(file).numbers for file in files),
        "bytes": sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        "recommended": read_toml(advice).get("recommended", {}) if advice.is_file() else {},
        "path": folder,
    }


def _resolution(folder: Path) -> int | None:
    """Return the side in pixels of the pictures the denoiser was trained on, if it says so."""
    configs = [folder / part / "config.json" for part in ("unet", "transformer", "vae")]
    values = [json.loads(path.read_text(encoding="utf-8")) for path in configs if path.is_file()]
    sample = next((value["sample_size"] for value in values if "sample_size" in value), None)
    blocks = values[-1].get("block_out_channels", []) if values else []
    return sample * 2 ** (len(blocks) - 1) if isinstance(sample, int) and blocks else None
