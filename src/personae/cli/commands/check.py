"""`personae check`: what to mend in a folder of pictures before training on it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.markup import escape
from rich.table import Table

from personae.characters.checks.finding import Level, grouped
from personae.cli.terminal import AsJson, Terminal, typed
from personae.core.units import count

if TYPE_CHECKING:
    from personae.characters.checks.inspection import Inspection

COLOURS: Final[dict[Level, str]] = {"error": "red", "warning": "yellow", "note": "dim"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(check)


def check(
    folder: Annotated[Path, typer.Argument(help="Folder of pictures, or a dataset file.")],
    flip: Annotated[
        bool, typer.Option("--flip", help="Pictures will be mirrored in training.")
    ] = False,
    resolution: Annotated[
        int, typer.Option(min=32, max=16_384, help="Side in pixels at which will be trained.")
    ] = 128,
    as_json: AsJson = False,
) -> None:
    """Find what spoils a training set: bad pictures, captions, too little variety.

    Ends with code 1 if there is an error that keeps training from starting.
    """
    from personae.characters.checks.inspection import inspect_folder

    terminal = Terminal(as_json)
    inspection = inspect_folder(folder, flip=flip, resolution=resolution)
    terminal.tell("inspection", **asdict(inspection), framings=inspection.framings)
    show_inspection(terminal, inspection)
    if not inspection.is_ready:
        raise typer.Exit(1)
    terminal.command(f"personae train {typed(inspection.path)}")


def show_inspection(terminal: Terminal, inspection: Inspection) -> None:
    """Show a report to a person."""
    held_out = f", {inspection.held_out} of them held out" if inspection.held_out else ""
    noun = inspection.class_noun or "character (nobody said what)"
    terminal.say(
        f"[bold]{escape(inspection.name)}[/], a {escape(noun)}: "
        f"{count(len(inspection.pictures), 'picture')}{held_out}"
    )
    terminal.say(f"  used: {_account(inspection)}")
    if any(number != 1 for number in inspection.repeats):
        repeats = ", ".join(
            f"{number:,} ({count(pictures, 'picture')})"
            for number, pictures in inspection.repeats.items()
        )
        terminal.say(f"  repeats: {repeats}")
    framings = ", ".join(f"{number} {name}" for name, number in inspection.framings.items())
    terminal.say(f"  framing: {framings or 'none'}")
    if inspection.backgrounds:
        colour, number = inspection.backgrounds[0]
        kinds = count(len(inspection.backgrounds), "kind")
        terminal.say(f"  backgrounds: {kinds}, most often {escape(colour)} ({number})")
    if inspection.findings:
        terminal.say(_table(inspection))
    if len(inspection.findings) > len(grouped(inspection.findings)):
        terminal.say("  --json names every file of a group.")
    numbers = [count(inspection.count(level), level) for level in COLOURS]
    ready = "ready to train" if inspection.is_ready else "not ready to train"
    terminal.say(f"{', '.join(numbers)}: [bold]{ready}[/].")


def _account(inspection: Inspection) -> str:
    """Return how many of the files found are used: "7 of 9 pictures, 7 captions"."""
    words = []
    for noun, tally in inspection.census.tallies.items():
        if tally.found:
            of = f"{tally.used} of " if tally.used < tally.found else ""
            words.append(of + count(tally.found, noun))
    share = inspection.mask_share
    marked = "" if share is None else f"; masks mark {share:.0%} of a picture on average"
    return (", ".join(words) or "nothing") + marked


def _table(inspection: Inspection) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(overflow="fold", max_width=28)
    table.add_column(overflow="fold")
    for finding, number in grouped(inspection.findings):
        file = "" if finding.file == inspection.path else finding.file.name
        if number > 1:
            file = f"{number:,} files, as {file}"
        level = f"[{COLOURS[finding.level]}]{finding.level}[/]"
        table.add_row(level, escape(file), escape(finding.message))
    return table
