"""A cell of a study: one thing to measure, in a folder of its own.

`cell.toml` says what it is, `result.json` what came out; without the second it is pending. A cell
that broke keeps its error as its result, so that a study is not held up by it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from personae.core.config import Config, read_toml, to_toml
from personae.core.files import write_text
from personae.errors import StudyError
from personae.study.result import CellFailure, CellResult, read_result, write_result
from personae.training.settings import RunConfig

CellKind = Literal["trained", "untouched", "real"]
CellState = Literal["pending", "failed", "done"]


class CellSpec(Config):
    """What a cell measures; two cells with the same spec have the same folder."""

    kind: CellKind = "trained"
    """trained: a technique; untouched: the base alone; real: the held-out pictures themselves."""
    run: RunConfig
    """Settings of training and judging; of the other kinds only what is not about training."""
    budget: str = "steps"
    """How long techniques train: steps, steps=N, presentations=N, seconds=N or own."""
    techniques: list[str] = []
    """All techniques of the study, which the budget is shared by."""
    swept: dict[str, Any] = {}
    """The swept fields and their values in this cell, by dotted name."""
    character_hash: str = ""
    """Digest of the character's pictures and captions, held-out ones included."""

    @property
    def digest(self) -> str:
        """Return eight digits that stand for all of it.

        Fields that older cells do not have count only where they are set, so that older cells are
        found in their folders.
        """
        later = {"run": {"judging": {"second"}}} if self.run.judging.second is None else None
        return hashlib.sha256(self.model_dump_json(exclude=later).encode()).hexdigest()[:8]

    @property
    def row(self) -> str:
        """Return the name of the table row this cell counts for."""
        if self.kind != "trained":
            return self.kind
        swept = [f"{name}={value}" for name, value in self.swept.items()]
        return " ".join([self.run.technique, *swept])


@dataclass(frozen=True, slots=True)
class Cell:
    """A spec and the folder it lives in."""

    spec: CellSpec
    folder: Path

    @classmethod
    def read(cls, folder: str | Path) -> Cell:
        """Open a cell's folder.

        Raises:
            UsageError: there is no cell in it.
        """
        folder = Path(folder)
        values = read_toml(folder / "cell.toml")
        run = RunConfig.read(values.pop("run", {}), where=str(folder / "cell.toml"))
        return cls(CellSpec.parse({**values, "run": run}, where=str(folder / "cell.toml")), folder)

    @property
    def name(self) -> str:
        """Return the folder's name, which says what the cell is."""
        return self.folder.name

    @property
    def training(self) -> Path:
        """Return the run folder of a trained cell."""
        return self.folder / "training"

    @property
    def pictures(self) -> Path:
        """Return where its pictures lie."""
        return self.folder / "pictures"

    @property
    def result_file(self) -> Path:
        """Return where the result is, once there is one."""
        return self.folder / "result.json"

    def begin(self) -> None:
        """Write the spec, unless it is there."""
        if not (self.folder / "cell.toml").is_file():
            write_text(self.folder / "cell.toml", to_toml(self.spec))

    def result(self) -> CellResult | CellFailure | None:
        """Read the result; None if there is none, or none that can be used."""
        try:
            return read_result(self.result_file)
        except StudyError:
            return None

    @property
    def state(self) -> CellState:
        """Say how far it is; a cell whose result cannot be used is pending."""
        result = self.result()
        return "pending" if result is None else result.status

    @property
    def problem(self) -> str:
        """Say in one line why it broke, or why its result cannot be used; "" if nothing is."""
        try:
            result = read_result(self.result_file)
        except StudyError as error:
            return str(error)
        return result.error if isinstance(result, CellFailure) else ""

    def write_result(self, result: CellResult | CellFailure) -> None:
        """Write the result; from now on the cell is done."""
        write_result(self.result_file, result)

    def fail(self, error: str) -> None:
        """Write down that the cell broke, and why, in one line."""
        self.write_result(CellFailure(row=self.spec.row, error=error))
