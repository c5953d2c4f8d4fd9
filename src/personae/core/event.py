"""The base of every event, something that happened, and the file that keeps them: a line each."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import TypeAdapter

from personae.errors import PersonaeError

_KINDS: dict[str, type[Event]] = {}
_READERS: dict[type[Event], TypeAdapter[Any]] = {}  # check values against the types of fields
"""{kind: the class of its events}; a class enters it by being defined."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened.

    Attributes:
        kind: the word that stands for the class in a file; unique among all events.
    """

    kind: ClassVar[str]

    def __init_subclass__(cls) -> None:
        """Make the class known to `from_json`."""
        _KINDS[cls.kind] = cls

    def to_dict(self) -> dict[str, Any]:
        """Return the kind, under "event", and the fields."""
        return {"event": self.kind, **asdict(self)}

    def to_json(self) -> str:
        """Return the event as one line of JSON."""
        return json.dumps(self.to_dict(), default=str)

    @staticmethod
    def from_json(line: str) -> Event | None:
        """Return the event that `to_json` wrote.

        None if the line is cut short, or of a kind or with fields that this version does not know.
        """
        try:
            values = json.loads(line)
            kind = _KINDS[values.pop("event")]
            if kind not in _READERS:
                _READERS[kind] = TypeAdapter(kind)
            event: Event = _READERS[kind].validate_python(values)
            return event
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None


@dataclass(frozen=True, slots=True)
class EventLog:
    """A file of events in the order they happened, one line of JSON each.

    A process that is killed while it writes may leave a last line cut short. It is left out when
    the file is read, and what is appended later starts on a line of its own.

    Attributes:
        path: the file; it need not be there yet.
        advice: what to do when the disk is full, for the message of the error.
    """

    path: Path
    advice: str = "free space, then run it again"

    def append(self, event: Event) -> None:
        """Write an event at the end: as a whole line, or not at all.

        Raises:
            PersonaeError: the disk is full, or the file cannot be written.
        """
        line = (event.to_json() + "\n").encode()
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                _append(descriptor, line)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise PersonaeError(
                f"{self.path}: cannot be written ({error.strerror}); {self.advice}"
            ) from None

    def read(self) -> list[Event]:
        """Return the events so far, without lines that are not whole."""
        if not self.path.is_file():
            return []
        text = self.path.read_text(encoding="utf-8", errors="replace")
        events = map(Event.from_json, text.split("\n"))
        return [event for event in events if event is not None]


def _append(descriptor: int, line: bytes) -> None:
    """Append a line; what finds no room leaves the file as it was.

    Raises:
        OSError: the system took only a part of it.
    """
    before = os.fstat(descriptor).st_size
    if before and os.pread(descriptor, 1, before - 1) != b"\n":
        line = b"\n" + line
    if os.write(descriptor, line) < len(line):
        os.ftruncate(descriptor, before)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
