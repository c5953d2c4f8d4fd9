"""What is measured: the plan of a benchmark, and the single measurements it is made of."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Literal, Self, cast

from pydantic import Field, field_validator

from personae.core.config import Config
from personae.core.units import parse_bytes
from personae.errors import UsageError

Clock = Literal["wall", "processor"]
Side = Literal["personae", "diffusers"]
Kind = Literal["peak", "operations", "training", "drawing"]
Turns = Literal["processes", "steps"]

TURN = "turn"
"""What a process writes after a training step when it lets the next one go on."""

CLOCKS: dict[Clock, Callable[[], float]] = {
    "wall": time.perf_counter,
    "processor": time.process_time,
}


class Plan(Config):
    """What to measure and how long."""

    base: str = "toon"
    """Base model: embedded name, folder, hub id, file, or sd15-shape: random weights of the shape
    of Stable Diffusion 1.5, which need no download."""
    techniques: str = "all"
    """Techniques, separated by commas."""
    precision: str = "auto"
    """Formats of the frozen base, separated by commas: auto, bf16, fp16, fp32, int8, nf4."""
    device: str = "auto"
    """auto, cuda, mps or cpu."""
    resolution: int | None = Field(default=None, ge=32, le=16_384)
    """Side of the pictures in pixels. Default: the base's own."""
    batch: int = Field(default=1, ge=1, le=4096)
    """Pictures in a training step, and in the character that is trained on."""
    steps: int = Field(default=7, ge=2, le=1_000_000)
    """Training steps of each process; the first is timed by itself."""
    rounds: int = Field(default=3, ge=1, le=1000)
    """Processes of each measurement; medians over them are told."""
    rank: int = Field(default=4, ge=1, le=16_384)
    """Rank of LoRA, on both sides."""
    picture_steps: int = Field(default=20, ge=1, le=1000)
    """Sampling steps of a picture, with guidance."""
    against: Literal["diffusers"] | None = None
    """Measure a plain loop of diffusers and peft by turns with ours."""
    measure: str = "training,drawing"
    """Parts to measure, separated by commas: training, drawing."""
    clock: Clock = "wall"
    """processor counts the time it computes, not the time of day: for machines that others use at
    the same time, with OMP_NUM_THREADS=1."""
    memory: str | None = None
    """Train under this limit, such as 6GiB, by the modes that `train --memory` chooses; the plain
    loop has none."""
    turns: Turns = "processes"
    """What takes turns in training: processes run one after the other; with steps, those of a
    round are in memory together and each does a step while the others wait, so that other work on
    the machine meets all alike."""

    @field_validator("memory")
    @classmethod
    def _amount(cls, memory: str | None) -> str | None:
        if memory is not None:
            parse_bytes(memory)  # before minutes were spent on the rest
        return memory

    def parts(self) -> list[Kind]:
        """Return which of training and drawing to measure.

        Raises:
            UsageError: another word is given.
        """
        parts = _split(self.measure)
        for part in parts:
            if part not in ("training", "drawing"):
                raise UsageError(f"measure is '{part}'; it must be training, drawing, or both")
        return cast(list[Kind], parts)

    def precisions(self) -> list[str]:
        """Return the formats to measure.

        Raises:
            UsageError: one is to be measured against diffusers that the plain loop does not have.
        """
        wanted = _split(self.precision)
        for name in wanted:
            if self.against and name not in ("auto", "bf16", "fp32"):
                raise UsageError(
                    f"precision is '{name}'; the plain loop of --against has bf16 and fp32"
                )
        return wanted


class Job(Config):
    """One measurement, made by a process of its own."""

    kind: Kind
    side: Side = "personae"
    technique: str = ""
    precision: str
    base: str
    device: str
    resolution: int | None
    batch: int
    steps: int
    rank: int
    picture_steps: int
    clock: Clock
    memory: str | None = None
    turns: Turns = "processes"
    round: int = 0
    started: float = 0.0
    """Reading of the machine's monotonic clock when the process was started."""

    @classmethod
    def of(cls, plan: Plan, base: str, kind: Kind, **fields: str | int) -> Self:
        """Return a measurement under the settings of `plan`, on the base at `base`."""
        shared = plan.model_dump(include=set(cls.model_fields) - {"base", "precision"})
        return cls.model_validate({**shared, "base": base, "kind": kind, **fields})

    def now(self) -> float:
        """Return the reading of the job's clock in seconds."""
        return CLOCKS[self.clock]()

    def since_start(self) -> float:
        """Return the seconds since the process was started, what it imported included."""
        return time.monotonic() - self.started if self.clock == "wall" else time.process_time()

    def give_way(self) -> None:
        """Where steps take turns, wait for the next one's; else return at once."""
        if self.turns == "steps":
            sys.stdout.write(TURN + "\n")
            sys.stdout.flush()
            sys.stdin.readline()

    @property
    def settings(self) -> dict[str, int]:
        """Return the technique's own settings that differ from its defaults."""
        return {"rank": self.rank} if self.technique == "lora" else {}

    @property
    def title(self) -> str:
        """Return what a progress bar says of it."""
        return " ".join(filter(None, (self.kind, self.technique, self.precision, self.side)))


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def techniques_of(plan: Plan, known: list[str]) -> list[str]:
    """Return the techniques to measure, all of `known` by default.

    Raises:
        UsageError: an unknown one is named.
    """
    from personae.core.registry import nearest

    wanted = known if plan.techniques == "all" else _split(plan.techniques)
    for name in wanted:
        if name not in known:
            raise UsageError(
                f"techniques names '{name}'; there are {', '.join(known)}.{nearest(name, known)}"
            )
    return wanted
