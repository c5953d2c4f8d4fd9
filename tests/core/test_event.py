"""Events: each kind is read back as it was written, and nothing else is."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import get_args, get_origin, get_type_hints

import pytest

from personae.core.event import Event, EventLog
from personae.study import events as of_studies
from personae.training import events as of_runs
from personae.training.events import Preview, Step

KINDS = [
    kind
    for module in (of_runs, of_studies)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, Event) and kind is not Event
]
EXAMPLES = {int: 3, float: 0.25, str: "words", dict: {"rank": 2}, Path: Path("a/b.png")}


def example(kind: type[Event]) -> Event:
    """Return an event with a value of the right type in each field."""
    values = {}
    for name, hint in get_type_hints(kind).items():
        if name != "kind":
            chosen = next((each for each in get_args(hint) if each in ("note",)), None)
            origin = get_origin(hint) or hint
            first = origin if origin in EXAMPLES else get_args(hint)[0]
            values[name] = chosen or EXAMPLES[first]
    assert set(values) == {each.name for each in fields(kind)}
    return kind(**values)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_an_event_is_read_back_as_it_was_written(kind: type[Event]) -> None:
    event = example(kind)
    assert Event.from_json(event.to_json()) == event


def test_a_line_of_an_older_version_lacks_what_was_added_since() -> None:
    line = '{"event": "verdict", "step": 10, "level": "note", "message": "learning", '
    line += '"loss_gap": 0.1, "output_change": 0.2}'
    assert Event.from_json(line) == of_runs.MonitorNote(10, "note", "learning", 0.1, 0.2, None)


def test_each_kind_has_a_word_of_its_own() -> None:
    assert len({kind.kind for kind in KINDS}) == len(KINDS) > 15


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "[]",
        "3",
        "null",
        "{}",
        '{"event": "of a later version"}',
        '{"event": []}',
        '{"event": "step"}',
        '{"event": "step", "step": "first", "steps": 2, "loss": 0, "learning_rate": 0, '
        '"grad_norm": 0, "seconds": 0}',
        "[" * 100_000,
        '{"event": "st{"event": "preview", "step": 1, "path": "a.png"}',
    ],
)
def test_what_is_no_whole_event_is_none(line: str) -> None:
    assert Event.from_json(line) is None


def test_fields_of_a_later_version_are_passed_over() -> None:
    line = '{"event": "preview", "step": 1, "path": "a.png", "mood": "merry"}'
    assert Event.from_json(line) == Preview(1, Path("a.png"))


def test_a_loss_that_is_no_number_is_kept() -> None:
    event = Event.from_json(Step(1, 2, float("nan"), 1e-3, 1.0, 0.1).to_json())
    assert isinstance(event, Step)
    assert event.loss != event.loss


def test_a_log_that_is_not_text_holds_nothing(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    assert log.read() == []
    log.path.write_bytes(bytes(range(256)))
    assert log.read() == []
    log.append(Preview(1, Path("a.png")))
    assert log.read() == [Preview(1, Path("a.png"))]
