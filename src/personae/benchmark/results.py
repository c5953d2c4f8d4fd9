"""What was measured: medians over the processes, ratios within a round, shares of the peak."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from personae.benchmark.jobs import Job, Plan
from personae.core.files import write_text
from personae.version import __version__

Key = tuple[str, str]  # technique, precision
OURS, THEIRS = "personae", "diffusers"
PARTS = {"training": "", "drawing": "use_"}
"""What is put before a figure's name: both parts have a load_seconds."""
COMPARED: tuple[str, ...]
COMPARED = ("step_seconds", "first_step_seconds", "peak_bytes", "steady_bytes", "load_seconds")
COMPARED += ("use_load_seconds", "use_switch_seconds", "use_picture_seconds")


class Results:
    """Figures by technique, precision and side.

    Attributes:
        plan: what was asked for.
        machine: what the machine can do, by precision.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.machine: dict[str, Mapping[str, Any]] = {}
        self._rounds: dict[Key, dict[str, dict[str, list[float]]]] = {}

    def add(self, job: Job, figures: Mapping[str, Any]) -> None:
        """Take in what one process measured."""
        if job.kind == "peak":
            self.machine[job.precision] = figures
            return
        key = (job.technique, job.precision)
        sides = self._rounds.setdefault(key, {})
        rounds = sides.setdefault(job.side, defaultdict(list))
        for name, value in figures.items():
            rounds[PARTS.get(job.kind, "") + name].append(value)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each technique and precision.

        `personae` and `diffusers` hold medians; `times_better` holds, for each cost, the median
        over the rounds of theirs divided by ours.
        """
        return [self._row(key, sides) for key, sides in self._rounds.items()]

    def _row(self, key: Key, sides: Mapping[str, Mapping[str, list[float]]]) -> dict[str, Any]:
        technique, precision = key
        row: dict[str, Any] = {"technique": technique, "precision": precision}
        for side, rounds in sides.items():
            row[side] = {name: median(values) for name, values in rounds.items()}
            self._share(row[side], precision)
        ours, theirs = sides[OURS], sides.get(THEIRS, {})
        row["times_better"] = {
            name: median(b / max(a, 1e-9) for a, b in zip(ours[name], theirs[name], strict=False))
            for name in COMPARED
            if name in ours and name in theirs
        }
        return row

    def _share(self, side: dict[str, float], precision: str) -> None:
        if "operations" in side and "step_seconds" in side:
            rate = side["operations"] / side["step_seconds"]
            side["share_of_peak"] = rate / self.machine[precision]["peak_rate"]

    def write(self, file: Path) -> None:
        """Write all of it as JSON, atomically."""
        write_text(file, json.dumps(self.as_json(), indent=2) + "\n")

    def as_json(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return {
            "version": __version__,
            "plan": self.plan.model_dump(mode="json"),
            "machine": self.machine,
            "rows": self.rows(),
        }
