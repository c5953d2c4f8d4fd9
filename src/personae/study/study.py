"""A study: a run file in which any value may be a list, and the cells that come of it.

    character = ["examples/mira", "examples/bit"]
    technique = ["lora", "dreambooth"]
    seed = [0, 1, 2]
    budget = "steps"
    [lora]
    rank = [4, 16, 64]
    [lora.schedule]
    learning_rate = 1e-3

A list makes an axis, and the cells are the product of all axes. A technique's table concerns only
its own cells, its `schedule` goes before the common one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel

from personae.characters.character import Character
from personae.core.config import Config, read_toml, to_toml
from personae.core.files import safe_name, write_text
from personae.errors import PersonaeError, StudyError, UsageError
from personae.study.budget import Budget
from personae.study.cell import Cell, CellSpec
from personae.study.grid import expand
from personae.training.settings import RunConfig


class StudySettings(Config):
    """What a study file has besides the fields of a run."""

    budget: str = "steps"
    """How long each technique trains: steps (equal presentations, as many as the longest
    recommendation), steps=N, presentations=N, seconds=N, or own (each as long as it recommends)."""
    references: bool = True
    """Also measure the untouched base and, as the ceiling, the held-out pictures."""


@dataclass(frozen=True, slots=True)
class Study:
    """A grid of cells below one folder.

    Attributes:
        folder: holds `study.toml` and `cells/`.
        settings: what is common to all cells.
        cells: in the order they are run: what is not trained comes first.
        values: the grid as it was given, for `study.toml`.
        broken: {character folder: error} of characters that cannot be opened.
    """

    folder: Path
    settings: StudySettings
    cells: list[Cell]
    values: dict[str, Any]
    broken: dict[str, str] = field(default_factory=dict)

    @classmethod
    def plan(cls, values: dict[str, Any], folder: str | Path, *, where: str = "study") -> Self:
        """Expand a grid into cells; nothing is run or written.

        Raises:
            UsageError: a key or value is wrong.
            StudyError: the grid is empty, or two characters have the same name.
        """
        common = {key: values[key] for key in StudySettings.model_fields if key in values}
        settings = StudySettings.parse(common, where=where)
        Budget.parse(settings.budget)
        grid = {key: value for key, value in values.items() if key not in common}
        if "character" not in grid:
            raise UsageError(f"{where}: 'character' is missing; name at least one character folder")
        runs = [
            (RunConfig.read(run, where=where), swept) for run, swept in expand(grid, where=where)
        ]
        if not runs:
            raise StudyError(f"{where}: a list is empty, so there is nothing to run; fill it")
        opened, broken = _open({str(run.character) for run, _ in runs})
        specs = list(_specs(runs, settings, opened))
        cells = [Cell(spec, _place(Path(folder), spec, opened)) for spec in specs]
        unique = {cell.folder: cell for cell in cells}
        return cls(Path(folder), settings, list(unique.values()), values, broken)

    @classmethod
    def read(cls, file: str | Path, folder: str | Path | None = None) -> Self:
        """Plan the study of a TOML file; it runs in `folder`, by default the file's own.

        Raises:
            UsageError: the file is missing, or a key or value is wrong.
        """
        file = Path(file)
        return cls.plan(read_toml(file), folder or file.parent, where=str(file))

    @classmethod
    def open(cls, place: str | Path, folder: str | Path | None = None) -> Self:
        """Plan the study of a file, or of the folder it runs in.

        Args:
            place: a study file, or a folder with `study.toml`.
            folder: where it runs; by default that folder, or `studies/` and the file's name.

        Raises:
            UsageError: there is none, or a key or value is wrong.
        """
        place = Path(place)
        file = place / "study.toml" if place.is_dir() else place
        if not file.is_file() and place.suffix != ".toml":
            raise UsageError(f"{place}: holds no study (no study.toml); check the path")
        usual = file.parent if file.name == "study.toml" else Path("studies") / file.stem
        return cls.read(file, folder or usual)

    def begin(self) -> None:
        """Write the study file and every cell's spec."""
        write_text(self.folder / "study.toml", to_toml_values(self.values))
        for cell in self.cells:
            cell.begin()
        for character, error in self.broken.items():
            for cell in self.cells:
                if str(cell.spec.run.character) == character and cell.state == "pending":
                    cell.fail(error)

    def pending(self, *, retry_failed: bool = False) -> list[Cell]:
        """Return the cells without a result, with `retry_failed` also those that broke."""
        return [
            cell
            for cell in self.cells
            if (state := cell.state) == "pending" or (retry_failed and state == "failed")
        ]

    def failed(self) -> list[Cell]:
        """Return the cells that broke."""
        return [cell for cell in self.cells if cell.state == "failed"]


def to_toml_values(values: dict[str, Any]) -> str:
    """Write plain values as TOML."""
    return to_toml(_Plain(**values))


class _Plain(BaseModel, extra="allow"):
    """Any values."""


def _open(folders: set[str]) -> tuple[dict[str, Character], dict[str, str]]:
    """Open the characters of a study; return those and the errors of those that refuse.

    Raises:
        StudyError: two have the same name, or none can be opened.
    """
    opened: dict[str, Character] = {}
    broken: dict[str, str] = {}
    for folder in sorted(folders):
        try:
            opened[folder] = Character.open(folder)
        except PersonaeError as error:
            broken[folder] = str(error)
    names = [character.name for character in opened.values()]
    for name in names:
        if names.count(name) > 1:
            raise StudyError(
                f"two characters are called '{name}'; rename one in its character.toml"
            )
    if not opened:
        raise StudyError(f"no character can be opened: {next(iter(broken.values()))}")
    return opened, broken


def _specs(
    runs: list[tuple[RunConfig, dict[str, Any]]],
    settings: StudySettings,
    opened: dict[str, Character],
) -> Iterator[CellSpec]:
    """Yield the specs: references first, so that a look at the report is possible early."""
    techniques = list(dict.fromkeys(run.technique for run, _ in runs))
    hashes = {folder: pictures_hash(character) for folder, character in opened.items()}
    if settings.references:
        for run, _ in runs:
            plain = RunConfig(
                character=run.character,
                base=run.base,
                device=run.device,
                precision=run.precision,
                judging=run.judging,
            )
            for kind in ("untouched", "real"):
                character_hash = hashes.get(str(run.character), "")
                yield CellSpec(kind=kind, run=plain, character_hash=character_hash)
    for run, swept in runs:
        yield CellSpec(
            run=run,
            budget=settings.budget,
            techniques=techniques,
            swept=swept,
            character_hash=hashes.get(str(run.character), ""),
        )


def _place(folder: Path, spec: CellSpec, opened: dict[str, Character]) -> Path:
    """Return the cell's folder: what it is in words, and a digest of all that decides it."""
    character = opened.get(str(spec.run.character))
    name = character.name if character else spec.run.character.name
    words = [name, spec.row, *([f"s{spec.run.seed}"] if spec.kind == "trained" else [])]
    joined = "-".join([*words, spec.digest]).replace(" ", "-").replace("/", "_")
    return folder / "cells" / safe_name(joined)


def pictures_hash(character: Character) -> str:
    """Return a digest of all pictures and captions of a character, the held-out ones included."""
    held_out = sorted(
        hashlib.sha256(reference.path.read_bytes()).hexdigest() for reference in character.held_out
    )
    return hashlib.sha256(":".join([character.fingerprint, *held_out]).encode()).hexdigest()[:16]
