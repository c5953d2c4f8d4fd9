"""The learning curve of a run, read from its events and thinned for a page."""

from __future__ import annotations

from typing import Any

from personae.training.run_folder import RunFolder

POINTS = 60


def learning_curve(folder: RunFolder) -> dict[str, Any]:
    """Return what a run's `events.jsonl` tells of its course.

    Returns:
        loss: [step, mean loss since the point before] for at most `POINTS` points; validation:
        [step, loss, the base's]; scored: one dict per checkpoint; stopped, kept: the events, or
        None.
    """
    events = folder.events()
    by_step = {event["step"]: event for event in _of(events, "step")}  # a resumed step counts once
    losses = [(step, by_step[step]["loss"]) for step in sorted(by_step)]
    scored = {event["step"]: event for event in _of(events, "scored")}
    validation = {event["step"]: event for event in _of(events, "validation")}
    return {
        "loss": _thinned(losses),
        "validation": [
            [s, validation[s]["loss"], validation[s]["base"]] for s in sorted(validation)
        ],
        "scored": [scored[step] for step in sorted(scored)],
        "stopped": next(iter(_of(events, "stopped_early")), None),
        "kept": next(iter(_of(events, "kept")), None),
    }


def _of(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == kind]


def _thinned(points: list[tuple[int, float]]) -> list[list[float]]:
    size = -(-len(points) // POINTS) or 1
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [[group[-1][0], sum(loss for _, loss in group) / len(group)] for group in groups]
