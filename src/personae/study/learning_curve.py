"""The learning curve of a run, read from its events and thinned for a page."""

from __future__ import annotations

from typing import TypeVar

from personae.core.event import Event
from personae.study.result import CheckpointScore, LearningCurve, TrainingWarning
from personae.training.events import Kept, Scored, Step, StoppedEarly, Validation
from personae.training.run_folder import RunFolder

POINTS = 60
Told = TypeVar("Told", bound=Event)


def learning_curve(folder: RunFolder) -> LearningCurve:
    """Return what a run's `events.jsonl` tells of its course; at most `POINTS` points of loss."""
    events = folder.events()
    losses = {event.step: event.loss for event in _of(events, Step)}  # a resumed step counts once
    scored = {event.step: event.to_dict() for event in _of(events, Scored)}
    validation = {event.step: (event.loss, event.base) for event in _of(events, Validation)}
    stopped, kept = _of(events, StoppedEarly), _of(events, Kept)
    return LearningCurve(
        loss=_thinned(sorted(losses.items())),
        validation=[(step, *found) for step, found in sorted(validation.items())],
        scored=[CheckpointScore.model_validate(scored[step]) for step in sorted(scored)],
        stopped=stopped[0].to_dict() if stopped else None,
        kept=kept[0].to_dict() if kept else None,
        warnings=[
            TrainingWarning(step=note.step, message=note.message) for note in folder.warnings()
        ],
    )


def _of(events: list[Event], kind: type[Told]) -> list[Told]:
    return [event for event in events if isinstance(event, kind)]


def _thinned(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    size = -(-len(points) // POINTS) or 1
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(group[-1][0], sum(loss for _, loss in group) / len(group)) for group in groups]
