"""How commands talk: tables and bars for a person, one JSON line after another for a machine."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType
from rich.errors import MarkupError
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

AsJson = Annotated[
    bool, typer.Option("--json", help="Print results and progress as JSON lines, for machines.")
]
PLAIN_LINES = 5  # lines that stand for a bar where there is no terminal

# What acts on a terminal instead of being shown: control characters but tab and end of line, marks
# that turn the direction of writing, and halves of characters, which cannot be written at all.
_ACTING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def clean(text: str) -> str:
    """Return `text` with what would act on a terminal spelled out: `\\x1b` for an escape.

    Names, captions, licences, cards and paths come from files, so that all that is shown goes
    through here.
    """
    text = text.replace("\r\n", "\n")
    return _ACTING.sub(lambda found: ascii(found[0])[1:-1], text)


def clean_outputs() -> None:
    """Let warnings go through `clean`, and nothing fail for a letter that the output has not."""
    streams: tuple[Any, ...] = (sys.stdout, sys.stderr)
    for stream in streams:
        with suppress(AttributeError, ValueError):  # another kind of stream, or closed
            stream.reconfigure(errors="backslashreplace")
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_CleanLines())


def flush_output() -> None:
    """Write what waits to be shown now, where a refusal can still be told.

    Raises:
        OSError: the output is a full disk, or closed.
    """
    if sys.stdout is None or sys.stdout.closed:
        return
    try:
        sys.stdout.flush()
    except OSError:
        silence_output()
        raise


def silence_output() -> None:
    """Give the output up, so that the end of the process does not try to write it again."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _CleanLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return clean(super().format(record))


class _CleanConsole(Console):
    """A console that shows text of files as text, in tables too."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Return what is shown of `text`; brackets that are no markup are brackets."""
        text = clean(text)
        try:
            return super().render_str(text, **options)
        except MarkupError:
            return super().render_str(text, **{**options, "markup": False})


@dataclass(slots=True)
class Terminal:
    """Where a command's output goes.

    Attributes:
        as_json: nothing but JSON lines.
        console: for people; long lines are not broken where there is no terminal.
    """

    as_json: bool = False
    console: Console = field(default_factory=lambda: _CleanConsole(highlight=False, soft_wrap=True))

    def say(self, what: RenderableType = "") -> None:
        """Show text (with rich markup) or a table to a person."""
        if not self.as_json:
            self.console.print(what)

    def command(self, line: str) -> None:
        """Show a person a command to type next, on a line of its own that can be copied."""
        self.say(f"  [cyan]{escape(line)}[/]")

    def tell(self, event: str, **values: Any) -> None:
        """Give a machine an event or a result, as one line."""
        if self.as_json:
            print(json.dumps({"event": event, **values}, default=str), flush=True)

    def line(self, text: str) -> None:
        """Give a machine a line of JSON that is ready."""
        if self.as_json:
            print(text, flush=True)

    @contextmanager
    def waiting(self, label: str) -> Iterator[None]:
        """Show that something without a known length is going on."""
        if self.as_json or not self.console.is_terminal:
            yield
        else:
            with self.console.status(label):
                yield

    @contextmanager
    def bars(self) -> Iterator[Bars]:
        """Show progress for the length of a `with` block."""
        bars = Bars(self)
        with bars.progress:
            yield bars


class Bars:
    """Bars with counts and the time left; a few plain lines where there is no terminal.

    Attributes:
        progress: rich's display.
    """

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TextColumn("[dim]{task.fields[note]}[/]"),
            TimeElapsedColumn(),
            TextColumn("[dim]left[/]"),
            TimeRemainingColumn(),
            console=terminal.console,
            disable=terminal.as_json or not terminal.console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._last: dict[str, int] = {}

    def show(self, label: str, done: int, total: int, note: str = "") -> None:
        """Set the bar called `label` to `done` of `total`, with a remark behind it."""
        if self.progress.disable:
            self._print(label, done, total, note)
            return
        if label not in self._tasks:
            self._tasks[label] = self.progress.add_task(label, total=total, note=note)
        self.progress.update(self._tasks[label], completed=done, total=total, note=note)

    def _print(self, label: str, done: int, total: int, note: str) -> None:
        part = done * PLAIN_LINES // max(total, 1)
        if part != self._last.get(label, 0):
            self._terminal.say(f"{label} {done}/{total} {note}".rstrip())
        self._last[label] = part


def typed(path: Path) -> str:
    """Return a path as a part of a command to type: `tilde`, quoted where the shell needs it."""
    return shlex.quote(tilde(path))


def tilde(path: Path) -> str:
    """Return a path as a person would type it here: relative to where they are, if below."""
    path = Path(path)
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_absolute() and path.is_relative_to(here) else path)
