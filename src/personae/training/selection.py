"""Scoring checkpoints while training, keeping the one worth keeping, and stopping in time.

Every checkpoint draws a small suite under its own seeds. `selection_rules` decides; here the
checkpoints are drawn, stored, and the chosen one is put back into the techniques.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from personae.artifacts.artifact import Artifact
from personae.artifacts.card import stored_name
from personae.core.event import Event
from personae.core.files import write_text
from personae.errors import TrainingError, UsageError
from personae.evaluation.judge import Judge
from personae.evaluation.scores import Scores
from personae.generation.cast import Cast, Member
from personae.generation.picture import Picture
from personae.techniques.modes import untouched
from personae.training.events import Kept, Scored, StoppedEarly
from personae.training.run_folder import RunFolder
from personae.training.selection_rules import Choice, ScoredCheckpoint, choose, stop_reason
from personae.training.trainer import Trainer, artifact_of

SEED = 501  # far from the full suite's seeds, so that none is chosen by what measures it


class CheckpointSelector:
    """Looks at each checkpoint of a run.

    Attributes:
        enough: why training should stop now, or None.
    """

    def __init__(self, trainer: Trainer, folder: RunFolder) -> None:
        if not trainer.character.held_out:
            raise UsageError(
                f"keep is '{trainer.config.keep}', but no picture of '{trainer.character.name}' is "
                "held out to judge by; bring at least 5 pictures, or use --keep last"
            )
        judge = Judge.of(trainer.config.judging, trainer.base, trainer.character)
        self.judge = judge.small(trainer.config.judging.checkpoint_shots)
        self.folder = folder.path / "candidates"
        self.enough: str | None = None
        with untouched(trainer.techniques):
            self._before = self.judge.untouched(SEED)
        self._scored: list[ScoredCheckpoint] = []

    def catch_up(self, trainer: Trainer, step: int, every: int) -> Iterator[Event]:
        """Take up the scores of a run that is resumed at `step`; score it if that was not done."""
        self._scored = [one for one in self._stored() if one.step <= step]
        self._judge_end(trainer)
        known = any(one.step == step for one in self._scored)
        if step > 0 and step % every == 0 and not known:
            yield from self.look(trainer, step)

    def look(self, trainer: Trainer, step: int) -> Iterator[Event]:
        """Store and score the state after `step`."""
        with _as_drawn(trainer):
            artifact = artifact_of(trainer)
            artifact.save(self.file(step))
            scores = self._scores(trainer, artifact)
        self._remember(scored(step, scores))
        found = self._scored[-1]
        yield Scored(step, _mean(found.likeness), _mean(found.agreement), found.drift, found.copies)
        self._judge_end(trainer)
        if self.enough and step < trainer.schedule.total_steps:
            yield StoppedEarly(step, self.enough)

    def conclude(self, trainer: Trainer) -> Iterator[Event]:
        """Put the chosen checkpoint into the techniques and drop those not worth keeping."""
        choice = choose(self._scored)
        step = getattr(choice, trainer.config.keep)
        restore(trainer, Artifact.load(self.file(step)))
        trainer.end_at(step)
        self._tidy(choice)
        yield Kept(step, choice.best, choice.most_flexible, choice.last, choice.reason)

    def file(self, step: int) -> Path:
        """Return where the artifact of a checkpoint lies."""
        return self.folder / f"step-{step:06d}.safetensors"

    def _scores(self, trainer: Trainer, artifact: Artifact) -> Scores:
        name = trainer.character.name
        cast = Cast({name: Member(artifact, techniques=trainer.techniques)})
        requests = self.judge.requests(f"{{{name}}}", SEED)
        pictures = self.judge.draw(requests, cast)
        of_class: list[Picture] = self.judge.draw(self.judge.class_requests(SEED), cast)
        return self.judge.measure(requests, pictures, of_class, self._before, SEED)

    def _judge_end(self, trainer: Trainer) -> None:
        self.enough = stop_reason(self._scored) if trainer.config.stop_early else None

    def _remember(self, checkpoint: ScoredCheckpoint) -> None:
        """Keep the score on disk too: a resumed run has its earlier ones."""
        self._scored = [one for one in self._scored if one.step < checkpoint.step] + [checkpoint]
        stored = [
            {
                key: value.tolist() if isinstance(value, np.ndarray) else value
                for key, value in asdict(one).items()
            }
            for one in self._scored
        ]
        write_text(self.folder / "scores.json", json.dumps(stored) + "\n")

    def _stored(self) -> list[ScoredCheckpoint]:
        path = self.folder / "scores.json"
        return read_scores(path) if path.is_file() else []

    def _tidy(self, choice: Choice) -> None:
        kept = {self.file(step) for step in (choice.best, choice.most_flexible, choice.last)}
        for path in self.folder.glob("step-*.safetensors"):
            if path not in kept:
                path.unlink()


def read_scores(path: Path) -> list[ScoredCheckpoint]:
    """Return the scores of a run's checkpoints so far.

    Raises:
        TrainingError: the file is damaged.
    """
    try:
        return [_from_json(one) for one in json.loads(path.read_text(encoding="utf-8"))]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise TrainingError(
            f"{path}: is damaged ({type(error).__name__}); delete it, then the choice is made "
            "among the checkpoints to come"
        ) from None


def scored(step: int, scores: Scores) -> ScoredCheckpoint:
    """Return what the choice looks at."""
    metrics = scores.metrics
    copies = metrics["memorisation"].details.get("copies")
    following = metrics["prompt_following"].array()
    return ScoredCheckpoint(
        step=step,
        likeness=metrics["likeness"].array(),
        agreement=metrics["agreement"].array(),
        shots=metrics["likeness"].shots(),
        drift=metrics["drift"].mean,
        copies=float(np.mean(copies)) if copies else None,
        following=None if np.isnan(following).all() else following,
    )


@torch.no_grad()
def restore(trainer: Trainer, artifact: Artifact) -> None:
    """Put what an artifact holds into the techniques of a run; the average no longer counts."""
    for technique in trainer.techniques:
        for name, value in technique.state_dict().items():
            value.copy_(artifact.tensors[stored_name(technique.name, name)])
    trainer.average = None


@contextmanager
def _as_drawn(trainer: Trainer) -> Iterator[None]:
    """Have the techniques as they would be saved, averaged and in eval mode, then as they were."""
    averaged = trainer.average is not None
    trained = [p.detach().clone() for p in trainer.parameters] if averaged else []
    try:
        trainer.use_average()
        for technique in trainer.techniques:
            technique.eval()
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(trainer.parameters, trained, strict=averaged):
                parameter.copy_(value)
        for technique in trainer.techniques:
            technique.train()


def _from_json(stored: dict[str, Any]) -> ScoredCheckpoint:
    values = {
        key: np.array(stored[key], dtype=float)
        for key in ("likeness", "agreement", "following")
        if stored.get(key) is not None
    }
    return ScoredCheckpoint(**{**stored, **values, "shots": tuple(stored["shots"])})


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
