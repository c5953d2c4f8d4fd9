"""The base of every event: something that happened, written as one JSON line."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a run."""

    kind: ClassVar[str]

    def to_json(self) -> str:
        """Return the event as one line of JSON."""
        return json.dumps({"event": self.kind, **asdict(self)}, default=str)
