"""Run folders: what is written is whole or not there."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from personae.artifacts.card import TrainingRecord
from personae.core.event import Event
from personae.core.files import replacing, write_text
from personae.errors import PersonaeError, TrainingError, UsageError
from personae.training.events import Kept, MonitorNote, Step
from personae.training.run_folder import RunFolder, RunResult, RunState
from personae.training.settings import RunConfig
from personae.training.train import train
from tiny_world import paint, run_config


def test_the_newest_readable_checkpoint_is_taken_up(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.load_checkpoint() is None
    for step in (9, 10, 11):
        folder.save_checkpoint(step, {"weights": torch.full((3,), float(step))})
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-000010.pt", "step-000011.pt"]
    state = folder.load_checkpoint()
    assert (state["step"], state["weights"].tolist()) == (11, [11.0] * 3)


@pytest.mark.parametrize("damage", ["empty", "short", "text", "flipped"])
def test_a_damaged_checkpoint_is_passed_over_and_two_are_refused(
    tmp_path: Path, damage: str
) -> None:
    folder = RunFolder(tmp_path)
    older, newer = (folder.save_checkpoint(step, {"w": torch.ones(64)}) for step in (1, 2))

    def spoil(path: Path) -> None:
        data = path.read_bytes()
        at = data.index(torch.ones(64).numpy().tobytes())
        flipped = data[:at] + b"\x01" + data[at + 1 :]
        spoilt = {"empty": b"", "short": data[:300], "text": b"hello", "flipped": flipped}
        path.write_bytes(spoilt[damage])

    spoil(newer)
    assert folder.load_checkpoint()["step"] == 1
    spoil(older)
    with pytest.raises(TrainingError, match="none of its 2 checkpoints can be read; start anew"):
        folder.load_checkpoint()


def test_a_checkpoint_that_holds_code_is_not_run(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return (Path.touch, (tmp_path / "trace",))

    path = tmp_path / "checkpoints" / "step-000001.pt"
    path.parent.mkdir()
    torch.save({"step": 1, "x": Payload()}, path)
    with pytest.raises(TrainingError, match="none of its 1 checkpoints can be read"):
        RunFolder(tmp_path).load_checkpoint()
    assert not (tmp_path / "trace").exists()


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no run \(no config.toml\); check the path"):
        RunFolder(tmp_path).config()
    assert RunFolder(tmp_path).result() is None


def test_a_result_is_read_back(tmp_path: Path) -> None:
    result = RunResult(
        artifact="x.safetensors", training=TrainingRecord(steps=3), file_bytes=5, likeness=0.5
    )
    RunFolder(tmp_path).write_result(result)
    assert RunFolder(tmp_path).result() == result
    assert json.loads((tmp_path / "result.json").read_text())["likeness"] == 0.5


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", "null", "[" * 100_000, "9" * 5000,
        '{"artifact": "../../x", "training": {}, "file_bytes": 1}',
        '{"artifact": "x", "training": 3, "file_bytes": 1}',
    ],
)  # fmt: skip
def test_a_damaged_result_is_refused_with_what_to_do(text: str, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(TrainingError, match=r"result\.json: is damaged .*--resume") as refusal:
        RunFolder(tmp_path).result()
    assert "\n" not in str(refusal.value)


def test_a_file_is_the_old_or_the_new_one_and_never_a_part(tmp_path: Path) -> None:
    path = tmp_path / "a" / "file.txt"
    write_text(path, "old")

    def write_half() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert path.read_text() == "old"
    assert [each.name for each in path.parent.iterdir()] == ["file.txt"]
    write_text(path, "new")
    assert path.read_text() == "new"


def test_a_full_disk_is_told_in_one_line_and_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        PersonaeError, match=r"cannot be written \(No space left.*untouched"
    ) as error:
        write_text(path, "new")
    assert "\n" not in str(error.value)
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["file.txt"]


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let the system refuse to write more than `size` bytes into any file, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_checkpoint_that_finds_no_room_is_told_in_one_line_and_keeps_the_older(
    tmp_path: Path,
) -> None:
    folder = RunFolder(tmp_path)
    folder.save_checkpoint(1, {"weights": torch.zeros(10)})
    with (
        files_of_at_most(20_000),
        pytest.raises(PersonaeError, match=r"step-000002\.pt: cannot be written \(File too large"),
    ):
        folder.save_checkpoint(2, {"weights": torch.zeros(10_000)})
    assert folder.load_checkpoint()["step"] == 1
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1


def test_an_event_that_finds_no_room_leaves_the_log_whole(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    happened = [Step(step, 2, 0.5, 1e-3, 1.0, 0.1) for step in (1, 2)]
    folder.log(happened[0])
    room = (tmp_path / "events.jsonl").stat().st_size + 10
    with (
        files_of_at_most(room),
        pytest.raises(PersonaeError, match=r"events\.jsonl: cannot be written \(.*--resume"),
    ):
        folder.log(happened[1])
    folder.log(happened[1])
    assert folder.events() == happened
    assert not os.access(tmp_path / "events.jsonl", os.X_OK)


def test_a_line_cut_short_by_a_crash_spoils_neither_the_log_nor_what_follows(
    tmp_path: Path,
) -> None:
    folder = RunFolder(tmp_path)
    happened = [Step(step, 3, 0.5, 1e-3, 1.0, 0.1) for step in (1, 2, 3)]
    log = tmp_path / "events.jsonl"
    folder.log(happened[0])
    log.write_bytes(log.read_bytes() + happened[1].to_json().encode()[:40])
    assert folder.events() == happened[:1]
    folder.log(happened[2])
    assert folder.events() == [happened[0], happened[2]]
    assert log.read_text().splitlines()[2] == happened[2].to_json()


def test_tensors_that_find_no_room_are_told_in_one_line_and_keep_the_older_file(
    tmp_path: Path,
) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_text("old")
    with (
        files_of_at_most(20_000),
        pytest.raises(PersonaeError, match=r"cannot be written \(File too large\); free space"),
        replacing(path) as temporary,
    ):
        save_file({"weights": torch.zeros(10_000)}, temporary)
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_what_a_killed_process_left_of_a_checkpoint_is_cleared_away(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    kept = folder.save_checkpoint(3, {"value": 1})
    (kept.parent / ".step-000006.pt.4321.part").write_bytes(b"half")
    assert folder.load_checkpoint()["step"] == 3
    assert list(kept.parent.iterdir()) == [kept]


def test_a_run_that_is_refused_before_it_begins_leaves_no_folder(tmp_path: Path) -> None:
    paint(tmp_path / "pictures")
    config = run_config(tmp_path / "pictures", base=str(tmp_path / "none"))
    with pytest.raises(PersonaeError):
        list(train(config, tmp_path / "r"))
    assert not (tmp_path / "r").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "note.txt").write_text("mine")
    with pytest.raises(PersonaeError):
        list(train(config, tmp_path / "mine"))
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["note.txt"]


def told(step: int, level: str, message: str = "") -> MonitorNote:
    return MonitorNote(step, level, message or f"{level} at {step}", 0.0, 0.0)


def done(step: int) -> Step:
    return Step(step, 300, 0.5, 1e-3, 1.0, 0.1)


def kept(step: int) -> Kept:
    return Kept(step, step, step, 300, "the best")


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([done(50), told(50, "warning")], ["warning at 50"]),
        ([done(50), told(50, "warning"), done(300), told(300, "note")], []),
        ([told(50, "warning"), told(300, "warning")], ["warning at 300"]),
        ([told(50, "warning"), done(25), done(50), told(50, "note")], []),  # went on from a state
        ([told(150, "note"), told(300, "warning"), kept(150)], []),
        ([told(50, "warning"), told(300, "note"), kept(100)], ["warning at 50"]),
        ([kept(150), told(300, "warning", "some are zero")], ["some are zero"]),
    ],
)
def test_the_warnings_of_a_run_are_the_last_ones_before_what_it_kept(
    events: list[Event], expected: list[str], tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path)
    for event in events:
        folder.log(event)
    assert [note.message for note in folder.warnings()] == expected


def test_what_was_warned_of_after_the_step_that_is_taken_up_does_not_count(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for event in (told(25, "note"), told(50, "warning")):
        folder.log(event)
    assert folder.warnings(until=40) == []
    assert [note.step for note in folder.warnings(until=50)] == [50]


def test_a_run_without_tensorboard_installed_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint(tmp_path / "pictures")
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UsageError, match="tensorboard is not installed"):
        list(train(run_config(tmp_path / "pictures", tensorboard=True), tmp_path / "r"))
    assert not (tmp_path / "r").exists()


def test_a_run_that_has_not_finished_has_no_result(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "r")
    assert not folder.is_begun
    folder.begin(RunConfig(character=tmp_path))
    assert folder.is_begun
    assert folder.result() is None
    with pytest.raises(TrainingError, match="has not finished; continue it with --resume"):
        folder.finished()


def test_a_run_says_how_far_it_is(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "r")
    folder.begin(run_config(tmp_path))
    planned = folder.config().schedule.steps
    assert folder.state() == RunState(False, 0, planned, None, "")
    folder.log(Step(3, 9, 0.5, 1e-3, 1.0, 0.1))
    folder.log(MonitorNote(3, "warning", "it stands still", 0.1, 0.2))
    folder.log(Step(4, 9, 0.25, 1e-3, 1.0, 0.1))
    assert folder.state() == RunState(False, 4, 9, 0.25, "it stands still")
    folder.write_result(RunResult(artifact="a", training=TrainingRecord(), file_bytes=1))
    assert folder.state().finished
