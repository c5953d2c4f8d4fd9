"""What commands share that write one file: how it is called, and that nothing is overwritten."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from personae.cli.terminal import Terminal, tilde
from personae.errors import UsageError

if TYPE_CHECKING:
    from personae.artifacts.artifact import Artifact

OutOption = Annotated[Path, typer.Option(help="File to write; nothing is overwritten.")]


def refuse_overwriting(path: Path) -> None:
    """Raise UsageError if something is at `path` already."""
    if path.exists():
        raise UsageError(f"{path}: is there already; choose another file with --out")


def write_artifact(terminal: Terminal, event: str, artifact: Artifact, path: Path) -> None:
    """Save an artifact, and tell its path and what its card notes.

    Raises:
        UsageError: something is at `path` already.
    """
    refuse_overwriting(path)
    artifact.save(path)
    terminal.tell(event, path=path, card=artifact.card.model_dump(mode="json"))
    terminal.say(f"{artifact.technique}: [bold]{escape(tilde(path))}[/]")
    for name, note in artifact.card.notes.items():
        terminal.say(f"  [dim]{name}:[/] {escape(note)}")
