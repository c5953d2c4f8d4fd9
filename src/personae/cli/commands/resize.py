"""`personae resize`: a LoRA with fewer ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from personae.cli.output_files import OutOption, write_artifact
from personae.cli.terminal import AsJson, Terminal
from personae.errors import UsageError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(resize)


def resize(
    file: Annotated[Path, typer.Argument(help="A LoRA artifact.")],
    rank: Annotated[int | None, typer.Option(help="Most ranks of a layer.")] = None,
    share: Annotated[
        float | None, typer.Option(help="Share of the energy each layer keeps, in (0, 1].")
    ] = None,
    out: OutOption = Path("resized.lora.safetensors"),
    as_json: AsJson = False,
) -> None:
    """Make a LoRA smaller: the best of that size for every layer."""
    if rank is None and share is None:
        raise UsageError("give --rank, --share, or both")
    from personae.artifacts.artifact import Artifact
    from personae.artifacts.merge import resize as resized

    result = resized(Artifact.load(file), rank=rank, share=1.0 if share is None else share)
    write_artifact(Terminal(as_json), "resized", result, out)
