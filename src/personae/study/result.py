"""The schema of a cell's `result.json`: what was measured, or why nothing was.

The names of the fields are the keys in the file. Keys that a later version adds are kept when a
result is read and written again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from personae.core.files import write_text
from personae.errors import StudyError, UsageError
from personae.evaluation.scores import Scores

RESULT_FORMAT = 2
"""2: every shot has seeds of its own; results of before pair with none."""
MOST = 1e18
"""No cost is as much, in any unit; what is above comes from a damaged file."""
AGAIN = "run the study again, which makes it anew"


def _possible(amount: float) -> float:
    if not 0 <= amount < MOST:
        raise ValueError(f"{amount} is no amount of time or memory")
    return amount


def _file_name(name: str) -> str:
    if name in ("", ".", "..") or Path(name).name != name:
        raise ValueError(f"'{name}' is no name of a file in the cell's folder")
    return name


def _read_scores(stored: Any) -> Scores:
    if isinstance(stored, Scores):
        return stored
    try:
        scores = Scores.from_dict(TypeAdapter(dict[str, Any]).validate_python(stored))
    except UsageError as error:
        raise ValueError(str(error)) from None
    return TypeAdapter(Scores).validate_python(scores.to_dict())


def _paired(scores: Scores) -> Scores:
    """Refuse values and findings that are not one for each picture."""
    for name, score in scores.metrics.items():
        copies = score.details.get("copies")
        for listed in (score.values, copies if isinstance(copies, list | tuple) else ()):
            if listed and len(listed) != len(score.keys):
                raise ValueError(f"{name} has {len(listed)} values for {len(score.keys)} pictures")
    return scores


Cost = Annotated[int | float, AfterValidator(_possible)]
StoredScores = Annotated[
    Scores,
    BeforeValidator(_read_scores),
    AfterValidator(_paired),
    PlainSerializer(Scores.to_dict),
]


class Part(BaseModel):
    """A table of the file."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)


class CellCharacter(Part):
    """Whom the cell is about."""

    name: str
    """What prompts call the character."""
    class_noun: str
    """What it is: girl, robot, cat."""
    fingerprint: str
    """Digest of the training pictures and captions."""
    pictures: int
    """How many were trained on."""
    held_out: int
    """How many were kept back to judge by."""
    folder: str
    """Where they were."""


class CellBase(Part):
    """The base model it was measured on."""

    source: str
    """Name, folder, file or hub id."""
    fingerprint: str
    """Digest of its weights."""
    device: str
    """Kind of device: cpu, cuda, mps."""
    precision: str
    """Format of its weights."""


class CellTraining(Part):
    """What was trained; all that the artifact's card says of it is in the file."""

    steps: int
    """Optimiser steps of the checkpoint that was kept."""
    batch_size: int
    """Pictures in a step."""


class CheckpointScore(Part):
    """What a checkpoint scored on the small suite; means over its pictures."""

    step: int
    """Optimiser steps before it."""
    likeness: float | None = None
    """Higher is better."""
    agreement: float | None = None
    """Higher is better."""
    drift: float | None = None
    """Lower is better."""
    copies: float | None = None
    """Share of pictures that copy a training picture."""


class TrainingWarning(Part):
    """What the learning monitor warned of when it looked last, in words with what to change."""

    step: int
    """When it looked."""
    message: str
    """In one line."""


class LearningCurve(Part):
    """How the training went."""

    loss: list[tuple[int, float]] = []
    """(step, mean loss since the point before)."""
    validation: list[tuple[int, float, float]] = []
    """(step, loss on held-out pictures, the untouched base's loss on them)."""
    scored: list[CheckpointScore] = []
    """One for each checkpoint that was scored."""
    stopped: dict[str, Any] | None = None
    """The event that says why training ended early, if it did."""
    kept: dict[str, Any] | None = None
    """The event that says which checkpoint was kept, if one was chosen."""
    warnings: list[TrainingWarning] = []
    """Of the checkpoint that was kept; results of older versions do not say."""


class CellPicture(Part):
    """A picture of the cell and what it was asked to show."""

    shot: str
    """Shot of the suite; held_out for a real picture."""
    seed: int
    """Seed it was drawn with."""
    prompt: str
    """As it was written."""
    file: Annotated[str, AfterValidator(_file_name)]
    """Name of the file in the folder of pictures."""


class CellSampling(Part):
    """How the pictures were drawn."""

    sampler: str
    """Name of the sampler."""
    steps: int
    """Sampling steps."""
    guidance_scale: float
    """Scale of classifier-free guidance."""


class CellFailure(Part):
    """Why a cell has no measurements.

    `Cell.fail` writes it; only `run_study(retry_failed=True)` tries the cell again.
    """

    row: str
    """Row of the table that the cell would have counted for."""
    status: Literal["failed"] = "failed"
    """Tells the two kinds of results apart."""
    error: str
    """In one line."""


class CellResult(Part):
    """What a cell measured."""

    row: str
    """Row of the table that the cell counts for."""
    status: Literal["done"] = "done"
    """Tells the two kinds of results apart."""
    side_by_side: int = 1
    """How many cells shared the machine, which makes times longer."""
    technique: str
    """The technique, or untouched or real."""
    seed: int
    """Seed of the training."""
    swept: dict[str, Any] = {}
    """The swept fields and their values, by dotted name."""
    character: CellCharacter
    """Whom it is about."""
    base: CellBase
    """The base model."""
    version: str = ""
    """Of personae."""
    costs: dict[str, Cost]
    """Seconds, bytes and counts by the names of `comparison.measures.COSTS`."""
    scores: StoredScores
    """Every metric."""
    pictures: list[CellPicture]
    """Of the character: drawn, or the real ones."""
    class_pictures: list[CellPicture] = []
    """Drawn of the class, without naming the character."""
    recipe: CellSampling | None = None
    """How they were drawn; a cell of real pictures has none."""
    artifact: str | None = None
    """The trained file, relative to the cell's folder."""
    content_hash: str | None = None
    """sha256 of what was trained."""
    training: CellTraining | None = None
    """Of a trained cell."""
    curve: LearningCurve | None = None
    """Of a trained cell."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        """Refuse a result that lacks what its kind of cell has."""
        needed: tuple[str, ...] = () if self.technique == "real" else ("recipe",)
        if self.technique not in ("real", "untouched"):
            needed += ("content_hash", "training", "curve")
        for name in needed:
            if getattr(self, name) is None:
                raise ValueError(f"'{name}' is missing")
        return self


def read_result(file: Path) -> CellResult | CellFailure | None:
    """Read a cell's result; None if it has none yet.

    Raises:
        StudyError: the file is damaged or of another format.
    """
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StudyError(f"{file}: cannot be read ({error.strerror}); check permissions") from None
    except (ValueError, RecursionError):
        raise StudyError(f"{file}: is damaged (it is not JSON); {AGAIN}") from None
    if not isinstance(stored, dict):
        raise StudyError(f"{file}: is damaged (it holds no table); {AGAIN}")
    version = stored.pop("format_version", None)
    if version != RESULT_FORMAT:
        raise StudyError(
            f"{file}: has format {str(version)[:20]}, this version makes {RESULT_FORMAT}; {AGAIN}"
        )
    kind = CellFailure if stored.get("status") == "failed" else CellResult
    try:
        return kind.model_validate(stored)
    except ValidationError as error:
        raise StudyError(f"{file}: is damaged ({_in_words(error)}); {AGAIN}") from None


def write_result(file: Path, result: CellResult | CellFailure) -> None:
    """Write a cell's result; fields that were not given are left out."""
    given = result.model_dump(exclude_unset=True)
    values = {"format_version": RESULT_FORMAT, "row": result.row, "status": result.status, **given}
    write_text(file, json.dumps(values, indent=1) + "\n")


def _in_words(error: ValidationError) -> str:
    """Return the first problem: "costs.seconds: input should be a valid number"."""
    problem = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in problem["loc"])
    said = problem["msg"].removeprefix("Value error, ")
    return f"{place}: {said[:1].lower()}{said[1:]}" if place else said
