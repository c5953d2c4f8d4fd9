"""The loop from end to end: it learns, it resumes bit for bit, it says what is wrong."""

from __future__ import annotations

import errno
import gc
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import tiny_world
from personae.artifacts.artifact import Artifact
from personae.core.cache import default_folder
from personae.core.checksum import checksum
from personae.core.event import Event
from personae.errors import DoesNotFitError, OccupiedError, PersonaeError, TrainingError, UsageError
from personae.generation.picture import Picture
from personae.models.family import Family
from personae.techniques.lora import LoRA
from personae.training.events import (
    CheckpointSaved,
    Finished,
    Forecast,
    MonitorNote,
    Preparing,
    Preview,
    RolledBack,
    Step,
    Stopped,
    Validation,
)
from personae.training.run_folder import RunFolder
from personae.training.settings import RunConfig
from personae.training.train import train
from tiny_world import artifact_of, bare, make, only, paint, run, run_config, techniques

STEPS = 4
EVERY_KIND = {
    "lora": {"rank": 4, "dropout": 0.2},
    "dreambooth": {},
    # A guard that acts at every step, so that a run which forgot its sizes would differ.
    "hypernetwork": {
        "max_ratio": 0.002,
        "initialisation": "kaiming_normal",
        "dropout_structure": [0, 0.3, 0],
    },
    "textual_inversion": {"num_vectors": 2},
}


def content(out: Path) -> str:
    (path,) = out.glob("*.safetensors")
    return Artifact.load(path).card.content_hash


def stopping_after(steps: int) -> Any:
    asked = iter(range(steps))
    return lambda: next(asked, None) is None


def settings_of(kind: str) -> dict[str, Any]:
    names = kind.split("+")
    return {"technique": kind, "settings": {name: EVERY_KIND.get(name, {}) for name in names}}


def full_config(kind: str, character: Path, **schedule: Any) -> RunConfig:
    """Return settings in which everything that draws at random or keeps a state is on."""
    return run_config(
        character,
        **settings_of(kind),
        checkpoint_every=3,
        validate_every=2,
        schedule={
            "steps": STEPS,
            "ema": 0.8,
            "noise_offset": 0.1,
            "caption_dropout": 0.3,
            "crop": "random",
            **schedule,
        },
    )


# A whole run


def test_a_run_tells_what_it_does_and_leaves_an_artifact(
    character: Path, sd1: Family, tmp_path: Path
) -> None:
    config = run_config(
        character,
        schedule={"steps": 10},
        checkpoint_every=4,
        preview_every=5,
        preview_prompts=["{character}", "the man"],
        validate_every=5,
    )
    events = run(config, tmp_path / "run", sd1)
    assert [event.step for event in only(events, Step)] == list(range(1, 11))
    kinds = [type(event) for event in events]
    assert kinds.index(Forecast) < kinds.index(Step)
    assert kinds[-1] is Finished
    assert [event.step for event in only(events, CheckpointSaved)] == [4, 8]
    assert [event.step for event in only(events, Validation)] == [5, 10]
    assert [event.step for event in only(events, MonitorNote) if event.level == "note"] == [10]
    assert [event.step for event in only(events, Preview)] == [5, 5, 10, 10]
    artifact = Artifact.load(events[-1].path)
    assert artifact.card.character.phrase == "mira cat"
    assert artifact.card.training.steps == 10
    assert artifact.card.training.pictures == 5  # the sixth is held out
    result = RunFolder(tmp_path / "run").result()
    assert result.artifact == events[-1].path.name
    assert events[-1].file_bytes == events[-1].path.stat().st_size
    for event in only(events, Preview):
        assert Picture.open(event.path).recipe.cast.keys() == {"character"}
    lines = (tmp_path / "run" / "events.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["event"] for line in lines] == [event.kind for event in events]


def test_the_forecast_says_what_the_run_will_take(
    character: Path, sd1: Family, tmp_path: Path
) -> None:
    events = run(run_config(character), tmp_path / "run", sd1)
    (forecast,) = only(events, Forecast)
    assert (forecast.steps, forecast.pictures) == (4, 5)
    assert forecast.parameters == make("lora", sd1).parameter_count
    assert forecast.seconds > 0
    assert forecast.peak_bytes > forecast.parameters * 4


def test_a_run_that_cannot_fit_is_refused_with_advice(
    character: Path, sd1: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Path.read_text

    def full_machine(path: Path, *args: Any, **kwargs: Any) -> str:
        if str(path) == "/proc/meminfo":
            return "MemTotal: 8 kB\nMemAvailable: 1 kB\n"
        return read(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", full_machine)
    with pytest.raises(DoesNotFitError, match="GiB are free; use a smaller batch_size"):
        run(run_config(character), tmp_path / "run", sd1)


@pytest.mark.parametrize("kind", [*EVERY_KIND, "textual_inversion+lora"])
def test_every_kind_of_run_lowers_the_frozen_loss(
    kind: str, character: Path, sd1: Family, tmp_path: Path
) -> None:
    rate = {"dreambooth": 3e-4}.get(kind, 2e-2)
    config = run_config(
        character,
        technique=kind,
        schedule={"steps": 10, "learning_rate": rate, "prior": "none", "caption_dropout": 0.0},
    )
    verdict = only(run(config, tmp_path / "run", sd1), MonitorNote)[0]
    # A network of random weights hardly follows prompts, and at this rate some forget them.
    assert verdict.message.startswith(("learning", "ignoring prompts"))
    assert verdict.loss_gap > 0
    assert verdict.output_change > 1e-4


def test_every_technique_is_in_the_table_of_runs() -> None:
    assert set(EVERY_KIND) == set(techniques())


# Determinism and resuming


@pytest.mark.parametrize("kind", [*EVERY_KIND, "textual_inversion+lora"])
def test_a_stopped_and_resumed_run_equals_an_uninterrupted_one(
    kind: str, character: Path, sd1: Family, tmp_path: Path
) -> None:
    config = full_config(kind, character)
    whole = run(config, tmp_path / "whole", sd1)
    first = run(config, tmp_path / "parts", sd1, should_stop=stopping_after(2))
    assert isinstance(first[-1], Stopped)
    assert first[-1].step == 2
    assert bare(sd1)
    rest = run(config, tmp_path / "parts", sd1, resume=True)
    losses = [(e.step, e.loss, e.grad_norm) for e in only(whole, Step)]
    assert [(e.step, e.loss, e.grad_norm) for e in only([*first, *rest], Step)] == losses
    kept = [(e.step, e.loss, e.base) for e in only(whole, Validation)]
    assert [(e.step, e.loss, e.base) for e in only([*first, *rest], Validation)] == kept
    assert content(tmp_path / "parts") == content(tmp_path / "whole")


def test_the_same_settings_give_the_same_bytes_and_another_seed_others(
    character: Path, sd1: Family, tmp_path: Path
) -> None:
    config = full_config("lora", character)
    for name in ("one", "two"):
        run(config, tmp_path / name, sd1)
    run(config.model_copy(update={"seed": 1}), tmp_path / "other", sd1)
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert content(tmp_path / "one") != content(tmp_path / "other")


def test_watching_a_run_does_not_change_it(character: Path, sd1: Family, tmp_path: Path) -> None:
    """Validation, previews and checkpoints are looks at a run; none of them is part of it."""
    config = full_config("hypernetwork", character)
    alone = {"validate_every": 100, "checkpoint_every": 100, "preview_every": 100}
    watched = {"validate_every": 1, "checkpoint_every": 1, "preview_every": 2}
    for name, rhythm in (("alone", alone), ("watched", watched)):
        prompts = ["{character}"] if name == "watched" else []
        other = config.model_copy(update={**rhythm, "preview_prompts": prompts})
        run(other, tmp_path / name, sd1)
    assert content(tmp_path / "alone") == content(tmp_path / "watched")


def test_validation_is_the_same_at_every_look(character: Path, sd1: Family, tmp_path: Path) -> None:
    """A run that hardly moves must see the same loss again and again, dropout or not."""
    config = run_config(
        character,
        settings={"lora": {"dropout": 0.5}},
        validate_every=1,
        schedule={"steps": 4, "learning_rate": 0.05, "learning_rate_schedule": "constant"},
    )
    one, two = (only(run(config, tmp_path / name, sd1), Validation) for name in "ab")
    assert [event.loss for event in one] == [event.loss for event in two]


KILLED = """
import sys
from pathlib import Path
from tiny_world import bases, run_config, run
from test_train import full_config
config = full_config("lora", Path(sys.argv[1]), steps=8)
run(config.model_copy(update={"checkpoint_every": 2}), Path(sys.argv[2]), bases()["tiny-sd1"])
"""


def test_a_run_killed_at_any_moment_resumes_as_if_nothing_was(
    character: Path, sd1: Family, tmp_path: Path
) -> None:
    places = os.pathsep.join(str(Path(each).parent) for each in (tiny_world.__file__, __file__))
    environment = os.environ | {"PYTHONPATH": places, "PYTHONWARNINGS": ""}
    arguments = [sys.executable, "-c", KILLED, str(character), str(tmp_path / "killed")]
    process = subprocess.Popen(arguments, env=environment, stderr=subprocess.DEVNULL)
    events, moment = tmp_path / "killed" / "events.jsonl", random.randint(1, 6)
    try:
        while process.poll() is None:
            if events.is_file() and f'"step": {moment},' in events.read_text("utf-8"):
                break
            time.sleep(0.01)
        assert process.poll() is None, f"the run ended with {process.returncode} before the kill"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    config = full_config("lora", character, steps=8).model_copy(update={"checkpoint_every": 2})
    rest = run(config, tmp_path / "killed", sd1, resume=True)
    run(config, tmp_path / "whole", sd1)
    assert only(rest, Step)[0].step <= moment + 2
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(
    character: Path, sd1: Family, tmp_path: Path
) -> None:
    config = full_config("lora", character).model_copy(update={"checkpoint_every": 2})
    run(config, tmp_path / "whole", sd1)
    run(config, tmp_path / "run", sd1, should_stop=stopping_after(3))
    *_, older, newest = sorted((tmp_path / "run" / "checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    rest = run(config, tmp_path / "run", sd1, resume=True)
    assert f"step-{only(rest, Step)[0].step - 1:06d}.pt" == older.name
    assert content(tmp_path / "run") == content(tmp_path / "whole")


def test_only_the_two_newest_checkpoints_are_kept(
    character: Path, sd1: Family, tmp_path: Path
) -> None:
    config = full_config("lora", character).model_copy(update={"checkpoint_every": 1})
    run(config, tmp_path / "run", sd1)
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["step-000002.pt", "step-000003.pt"]


def test_a_full_disk_in_a_checkpoint_leaves_the_older_one(
    character: Path, sd1: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = full_config("lora", character, steps=5).model_copy(update={"checkpoint_every": 2})
    run(config, tmp_path / "whole", sd1)
    folder, sync = tmp_path / "run", os.fsync

    def full_disk(descriptor: int) -> None:
        if "step-000004" in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    with monkeypatch.context() as disk:
        disk.setattr(os, "fsync", full_disk)
        with pytest.raises(PersonaeError, match=r"step-000004\.pt: cannot be written \(No space"):
            run(config, folder, sd1)
    assert bare(sd1)
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert names == ["step-000000.pt", "step-000002.pt"]
    rest = run(config, folder, sd1, resume=True)
    assert only(rest, Step)[0].step == 3
    assert content(folder) == content(tmp_path / "whole")


def test_closing_a_run_early_leaves_the_base_as_it_was(
    character: Path, sd1: Family, tmp_path: Path
) -> None:
    events = train(run_config(character), tmp_path / "run", base=sd1)
    assert next(event for event in events if isinstance(event, Step)).step == 1
    assert not bare(sd1)
    events.close()
    assert bare(sd1)


def test_a_folder_that_holds_a_run_is_not_overwritten(
    character: Path, sd1: Family, tmp_path: Path
) -> None:
    config = run_config(character)
    run(config, tmp_path / "run", sd1, should_stop=lambda: True)
    with pytest.raises(UsageError, match="already holds a run; continue it with --resume"):
        run(config, tmp_path / "run", sd1)
    with pytest.raises(UsageError, match="holds no run"):
        run(config, tmp_path / "elsewhere", sd1, resume=True)


def test_two_runs_do_not_share_a_folder(character: Path, sd1: Family, tmp_path: Path) -> None:
    config = run_config(character)
    first = train(config, tmp_path / "run", base=sd1)
    next(event for event in first if isinstance(event, Step))
    for resume in (False, True):
        with pytest.raises(OccupiedError, match=rf"now \(process {os.getpid()}\); wait for it"):
            run(config, tmp_path / "run", sd1, resume=resume)
    first.close()
    assert isinstance(run(config, tmp_path / "run", sd1, resume=True)[-1], Finished)


# What breaks


def latents_on_disk() -> Iterator[Path]:
    for path in default_folder().rglob("*.safetensors"):
        if "latents" in load_file(path):
            yield path


def poison(value: float) -> None:
    """Let the cache hold, in good order, latents that break a run."""
    for path in latents_on_disk():
        tensors = load_file(path)
        tensors = {**tensors, "latents": torch.full_like(tensors["latents"], value)}
        save_file(tensors, path, {"key": path.stem, "sha256": checksum(tensors)})


def test_a_loss_that_is_no_number_rolls_back_once_and_then_stops_with_advice(
    character: Path, sd1: Family, tmp_path: Path
) -> None:
    config = run_config(character, checkpoint_every=2, schedule={"steps": 6})
    seen: list[Event] = []

    def watch() -> None:
        for event in train(config, tmp_path / "run", base=sd1):
            seen.append(event)
            if isinstance(event, Step) and event.step == 3:
                poison(float("nan"))

    with pytest.raises(TrainingError) as refusal:
        watch()
    (back,) = only(seen, RolledBack)
    assert (back.step, back.to_step, back.learning_rate_factor) == (3, 2, 0.3)
    assert "\n" not in str(refusal.value)
    assert "--learning-rate 1.0e-04 (was 1.0e-03)" in str(refusal.value)
    assert bare(sd1)
    kept = RunFolder(tmp_path / "run").load_checkpoint()
    assert kept["step"] == 2
    for tensor in kept["techniques"]["lora"].values():
        assert torch.isfinite(tensor).all()


@pytest.mark.parametrize("kind", ["lora", "hypernetwork"])
def test_after_one_bad_loss_a_run_goes_on_at_a_lower_rate(
    kind: str, character: Path, sd1: Family, tmp_path: Path
) -> None:
    schedule = {"steps": 6, "learning_rate_schedule": "constant", "warmup": 0.0}
    config = run_config(character, technique=kind, checkpoint_every=2, schedule=schedule)
    healthy: dict[Path, bytes] = {}
    steps = []
    for event in train(config, tmp_path / "run", base=sd1):
        if isinstance(event, Step):
            steps.append(event)
            if event.step == 3 and not healthy:
                healthy = {path: path.read_bytes() for path in latents_on_disk()}
                poison(1e30)
        if isinstance(event, RolledBack):
            for path, data in healthy.items():
                path.write_bytes(data)
    assert [event.step for event in steps] == [1, 2, 3, 3, 4, 5, 6]
    assert [event.learning_rate for event in steps] == pytest.approx([1e-3] * 3 + [3e-4] * 4)
    (path,) = (tmp_path / "run").glob("*.safetensors")
    outputs = [
        t for name, t in Artifact.load(path).tensors.items() if name.endswith(("up", "2.weight"))
    ]
    assert outputs
    assert all(tensor.any() for tensor in outputs)


def test_an_absurd_learning_rate_is_refused_with_advice(
    character: Path, sd1: Family, tmp_path: Path
) -> None:
    config = run_config(character, schedule={"steps": 12, "learning_rate": 1e3})
    usual = sd1.recommended("lora", LoRA.recommended).learning_rate
    with pytest.raises(TrainingError, match=rf"--learning-rate {usual:.1e} \(was 1\.0e\+03\)"):
        run(config, tmp_path / "run", sd1)
    assert not list((tmp_path / "run").glob("*.safetensors"))
    assert RunFolder(tmp_path / "run").result() is None


def test_the_monitor_says_when_a_run_does_not_learn(
    character: Path, sd1: Family, tmp_path: Path
) -> None:
    config = run_config(character, schedule={"steps": 25, "learning_rate": 1e-6, "batch_size": 1})
    events = run(config, tmp_path / "run", sd1)
    verdicts = only(events, MonitorNote)[:2]
    assert [verdict.step for verdict in verdicts] == [10, 25]
    assert verdicts[0].message.startswith("warming up: ")
    assert verdicts[1].level == "warning"
    assert "not learning: the output changed by only 0.0" in verdicts[1].message
    usual = sd1.recommended("lora", LoRA.recommended).learning_rate
    assert f"such as {usual:.1e} (now 1.0e-06)" in verdicts[1].message


def test_a_resumed_run_keeps_the_advice_it_started_from(
    character: Path, sd1: Family, tmp_path: Path
) -> None:
    """A later version may advise another rate; the run must end as if it had not."""
    config = run_config(character, schedule={"learning_rate": None})
    whole = only(run(config, tmp_path / "whole", sd1), Step)
    kept = RunFolder(tmp_path / "whole").config().schedule
    usual = sd1.recommended("lora", LoRA.recommended)
    assert (kept.learning_rate, kept.prior) == (usual.learning_rate, usual.prior)
    begun = train(config, tmp_path / "begun", base=sd1)
    next(event for event in begun if isinstance(event, Step) and event.step == 2)
    begun.close()
    sd1.recommendations = {"lora": {"learning_rate": 2 * usual.learning_rate}}
    try:
        resumed = only(run(config, tmp_path / "begun", sd1, resume=True), Step)
    finally:
        sd1.recommendations = {}
    rates = {event.step: event.learning_rate for event in whole}
    assert resumed
    assert all(event.learning_rate == rates[event.step] for event in resumed)


def test_an_asymmetric_character_is_not_flipped(sd1: Family, tmp_path: Path) -> None:
    folder = paint(tmp_path / "mira")
    with (folder / "character.toml").open("a") as file:
        file.write("asymmetric = true\n")
    with pytest.raises(UsageError, match=r"flip is on, but mira is asymmetric.*leave --flip out"):
        run(run_config(folder, schedule={"flip": True}), tmp_path / "run", sd1)
    assert run(run_config(folder, schedule={"steps": 1}), tmp_path / "plain", sd1)


def test_a_run_that_learnt_nothing_is_no_success(
    character: Path, sd1: Family, tmp_path: Path
) -> None:
    config = run_config(
        character, technique="dreambooth", schedule={"learning_rate": 1e-60, "prior": "none"}
    )
    with pytest.raises(TrainingError, match="tensors are zero after 4 steps; nothing was learnt"):
        run(config, tmp_path / "run", sd1)


def test_memory_does_not_grow_with_pictures(sd1: Family, tmp_path: Path) -> None:
    counts = {}
    for pictures in (6, 30):
        folder = paint(tmp_path / f"{pictures}", pictures)
        config = run_config(folder, technique="textual_inversion")
        for event in train(config, tmp_path / f"run-{pictures}", base=sd1):
            if isinstance(event, Step) and event.step == 3:
                gc.collect()
                kept = (torch.Tensor, np.ndarray, Image.Image)
                counts[pictures] = sum(isinstance(each, kept) for each in gc.get_objects())
    assert counts[30] <= counts[6]


def test_memory_does_not_grow_with_steps(character: Path, sd1: Family, tmp_path: Path) -> None:
    config = run_config(
        character, technique="textual_inversion+lora", schedule={"steps": 18, "ema": 0.9}
    )
    counts = {}
    for event in train(config, tmp_path / "run", base=sd1):
        if isinstance(event, Step) and event.step in (11, 17):  # the monitor has what it keeps
            gc.collect()
            counts[event.step] = sum(type(each) is torch.Tensor for each in gc.get_objects())
    assert counts[17] <= counts[11]


# Options of the schedule


def test_class_pictures_are_drawn_once_for_prior_preservation(
    character: Path, sd1: Family, tmp_path: Path
) -> None:
    schedule = {"steps": 2, "prior": "images", "prior_images": 3}
    config = run_config(character, schedule=schedule)
    drawn = [
        [e.done for e in only(run(config, tmp_path / name, sd1), Preparing) if "class" in e.what]
        for name in ("one", "two")
    ]
    assert drawn == [[1, 2, 3], []]
    assert content(tmp_path / "one") == content(tmp_path / "two")
    run(run_config(character, schedule={**schedule, "prior_weight": 0.0}), tmp_path / "zero", sd1)
    assert content(tmp_path / "zero") != content(tmp_path / "one")


@pytest.mark.parametrize("prior", ["images", "prediction"])
@pytest.mark.parametrize("kind", list(EVERY_KIND))
def test_every_technique_takes_every_kind_of_prior(
    kind: str, prior: str, character: Path, sd1: Family, tmp_path: Path
) -> None:
    schedule = {"steps": 1, "prior": prior, "prior_images": 1}
    config = run_config(character, **settings_of(kind), schedule=schedule)
    assert isinstance(run(config, tmp_path / "run", sd1)[-1], Finished)


def test_another_optimizer_trains_and_resumes_as_well(
    character: Path, sd1: Family, tmp_path: Path
) -> None:
    config = full_config("lora", character, optimizer="adafactor")
    run(config, tmp_path / "whole", sd1)
    run(config, tmp_path / "parts", sd1, should_stop=stopping_after(2))
    run(config, tmp_path / "parts", sd1, resume=True)
    assert content(tmp_path / "parts") == content(tmp_path / "whole")


def test_gradient_checkpointing_changes_no_bit_and_is_switched_off_again(
    character: Path, sd1: Family, tmp_path: Path
) -> None:
    for kind in ("lora", "dreambooth"):
        for extent in ("none", "selective", "full"):
            config = full_config(kind, character, steps=2, gradient_checkpointing=extent)
            run(config, tmp_path / f"{kind}-{extent}", sd1)
        plain = content(tmp_path / f"{kind}-none")
        assert content(tmp_path / f"{kind}-selective") == plain
        assert content(tmp_path / f"{kind}-full") == plain
    assert not sd1.denoiser.is_gradient_checkpointing


def test_pictures_of_unlike_shapes_train_together(sd1: Family, tmp_path: Path) -> None:
    folder = paint(tmp_path / "mixed", 4)
    for number, size in ((0, (128, 64)), (1, (64, 128))):
        path = folder / f"{number:02}.png"
        Image.open(path).resize(size).save(path)
    config = run_config(folder, schedule={"steps": 5, "flip": True})
    assert isinstance(run(config, tmp_path / "run", sd1)[-1], Finished)


def test_a_trained_artifact_equals_what_the_technique_held(
    character: Path, sd1: Family, tmp_path: Path
) -> None:
    """The card's hash is of the tensors alone, so the same tensors always have the same hash."""
    run(full_config("lora", character), tmp_path / "run", sd1)
    (path,) = (tmp_path / "run").glob("*.safetensors")
    artifact = Artifact.load(path)
    (technique,) = artifact.build(sd1)
    assert artifact_of(technique, sd1).card.content_hash == artifact.card.content_hash


def test_a_finished_run_is_not_resumed(character: Path, sd1: Family, tmp_path: Path) -> None:
    config = run_config(character, schedule={"steps": 1})
    run(config, tmp_path / "run", sd1)
    with pytest.raises(UsageError, match="has finished"):
        run(config, tmp_path / "run", sd1, resume=True)
