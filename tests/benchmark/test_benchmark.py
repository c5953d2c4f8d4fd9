"""The benchmark: both loops train the same thing, operations are counted, ratios are right."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from personae.benchmark.bench import jobs_of, together, where
from personae.benchmark.jobs import Job, Plan, techniques_of
from personae.benchmark.operations import operations
from personae.benchmark.plain_loop import TECHNIQUES, PlainLoop, inputs
from personae.benchmark.plot import draw_plot
from personae.benchmark.results import Results
from personae.benchmark.turns import WorkerProcess, measure_together
from personae.benchmark.worker import main, measure
from personae.core.devices import HOST
from personae.errors import PersonaeError, UsageError
from tiny_world import shallow_pipeline

TINY = {"batch": 1, "steps": 2, "picture_steps": 1, "rank": 2, "resolution": 64}
KINDS = ("lora", "hypernetwork", "textual_inversion", "dreambooth")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a diffusers folder of a base of SD 1.x shape with fewer levels."""
    path = tmp_path_factory.mktemp("shallow")
    shallow_pipeline().save_pretrained(path)
    return path


def job(folder: Path, kind: str, technique: str, **fields: str) -> Job:
    plan = Plan(base=str(folder), device="cpu", **TINY)
    return Job.of(plan, str(folder), kind, technique=technique, precision="fp32", **fields)


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_the_plain_loop_learns_what_it_says_and_nothing_else(folder: Path, technique: str) -> None:
    loop = PlainLoop(folder, technique, dtype=torch.float32, device=HOST, rank=2)
    networks = (loop.pipe.unet, loop.pipe.text_encoder, loop.pipe.vae)
    every = [parameter for network in networks for parameter in network.parameters()]
    before = [parameter.detach().clone() for parameter in every]
    losses = [loop.step(**inputs(2, 64)) for _ in range(2)]
    trained = {id(parameter) for parameter in loop.trained}
    assert torch.tensor(losses).isfinite().all()
    for parameter, old in zip(every, before, strict=True):
        assert id(parameter) in trained or torch.equal(parameter, old)
    assert any(
        not torch.equal(parameter, old) for parameter, old in zip(every, before, strict=True)
    )


def test_the_plain_loop_of_words_leaves_the_vocabulary_as_it_was(folder: Path) -> None:
    loop = PlainLoop(folder, "textual_inversion", dtype=torch.float32, device=HOST, rank=2)
    before = loop.trained[0].detach().clone()
    loop.step(**inputs(1, 64))
    changed = (loop.trained[0] != before).any(dim=1)
    assert 0 < changed.sum() <= 8
    assert not changed[:521].any()


@pytest.mark.parametrize("technique", KINDS)
def test_our_step_has_operations_and_as_many_parameters_as_the_technique(
    folder: Path, technique: str
) -> None:
    counted = operations(job(folder, "operations", technique))
    assert counted["operations"] > 1e6
    assert counted["parameters"] > 0


def test_the_plain_step_has_more_operations_as_it_caches_nothing(folder: Path) -> None:
    ours = operations(job(folder, "operations", "lora"))
    theirs = operations(job(folder, "operations", "lora", side="diffusers"))
    assert theirs["parameters"] == ours["parameters"]
    assert theirs["operations"] > ours["operations"]


def test_attention_counts_as_the_products_it_is_made_of(folder: Path) -> None:
    """A whole fine-tuning pays for weight gradients: more than for inputs alone, below 1.6x."""
    full = operations(job(folder, "operations", "dreambooth"))["operations"]
    lean = operations(job(folder, "operations", "lora"))["operations"]
    assert 1.2 * lean < full < 1.6 * lean


@pytest.mark.parametrize("side", ["personae", "diffusers"])
def test_a_training_process_tells_steps_first_step_and_memory(folder: Path, side: str) -> None:
    figures = measure(job(folder, "training", "lora", side=side))
    assert {"step_seconds", "first_step_seconds", "peak_bytes", "steady_bytes"} <= set(figures)
    assert figures["peak_bytes"] >= figures["steady_bytes"] > 0


def test_a_training_process_keeps_to_a_limit_or_says_that_none_fits(folder: Path) -> None:
    assert measure(job(folder, "training", "lora", memory="64GiB"))["step_seconds"] > 0
    with pytest.raises(PersonaeError, match="memory is 1MiB; the leanest run of lora"):
        measure(job(folder, "training", "lora", memory="1MiB"))
    with pytest.raises(UsageError, match="memory"):
        Plan.parse({"memory": "much"}, where="bench")


@pytest.mark.parametrize("technique", KINDS)
def test_a_drawing_process_tells_switching_and_a_picture(folder: Path, technique: str) -> None:
    ours = measure(job(folder, "drawing", technique))
    assert {"load_seconds", "switch_seconds", "picture_seconds", "file_bytes"} == set(ours)


@pytest.mark.parametrize(("technique", "handled"), [("lora", True), ("textual_inversion", True),
                                                    ("dreambooth", False)])  # fmt: skip
def test_diffusers_handles_what_it_can_load(folder: Path, technique: str, handled: bool) -> None:
    theirs = measure(job(folder, "drawing", technique, side="diffusers"))
    assert ("switch_seconds" in theirs) == handled
    assert theirs["picture_seconds"] > 0


def test_both_sides_take_turns_and_hypernetworks_train_alone() -> None:
    plan = Plan(against="diffusers", rounds=2, precision="fp32", measure="training")
    jobs = [each for each in jobs_of(plan, "toon") if each.kind == "training"]
    sides = {name: [each.side for each in jobs if each.technique == name] for name in KINDS}
    assert sides["lora"] == ["personae", "diffusers"] * 2
    assert sides["hypernetwork"] == ["personae"] * 2


def test_ratios_are_medians_within_rounds_and_shares_are_of_the_peak(tmp_path: Path) -> None:
    plan = Plan(against="diffusers", rounds=3)
    results = Results(plan)
    of = {"technique": "lora", "precision": "bf16"}
    results.add(Job.of(plan, "toon", "peak", precision="bf16"), {"peak_rate": 100.0})
    results.add(Job.of(plan, "toon", "operations", **of), {"operations": 20.0})
    for ours, theirs in ((1.0, 2.0), (2.0, 8.0), (3.0, 9.0)):
        for side, seconds in (("personae", ours), ("diffusers", theirs)):
            done = Job.of(plan, "toon", "training", side=side, **of)
            results.add(done, {"step_seconds": seconds})
    (row,) = results.rows()
    assert row["personae"]["step_seconds"] == 2.0
    assert row["times_better"]["step_seconds"] == 3.0
    assert row["personae"]["share_of_peak"] == pytest.approx(0.1)
    assert json.dumps(results.as_json())
    assert draw_plot(results.rows(), tmp_path / "plot.svg").read_text("utf-8").count("<svg") == 1


def test_a_refusal_in_the_process_is_told_in_words(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = job(folder, "training", "lora").model_copy(update={"rank": 10**4})
    assert main(wrong.model_dump_json()) == 0
    assert "lora.rank is 10000" in json.loads(capsys.readouterr().out)["error"]


def test_a_plain_loop_of_minutes_a_step_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    plan = Plan(base=str(folder), precision="fp32,bf16", device="cpu", against="diffusers")
    with pytest.raises(UsageError, match="precision is 'bf16', for which this processor has no"):
        list(jobs_of(plan, str(folder)))
    assert list(jobs_of(plan.model_copy(update={"against": None}), str(folder)))


def test_plans_that_cannot_be_measured_are_refused() -> None:
    with pytest.raises(UsageError, match=r"names 'lore'.*Did you mean 'lora'"):
        techniques_of(Plan(techniques="lore"), list(KINDS))
    with pytest.raises(UsageError, match="measure is 'speed'"):
        Plan(measure="speed").parts()
    with pytest.raises(UsageError, match="has bf16 and fp32"):
        Plan(precision="fp16", against="diffusers").precisions()
    with pytest.raises(UsageError, match="needs a diffusers folder"):
        where(Plan(base="some/hub-id", against="diffusers"))


def test_the_plain_loop_without_peft_is_refused_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UsageError, match=r"needs peft .* pip install 'personae\[bench\]'"):
        where(Plan(against="diffusers"))


def test_a_process_measures_and_one_that_breaks_is_told(folder: Path, tmp_path: Path) -> None:
    plan = Plan(base=str(folder), device="cpu", **TINY)
    peak_job = Job.of(plan, str(folder), "peak", precision="fp32")
    (peak,) = measure_together([peak_job], tmp_path)
    assert peak["peak_rate"] == max(peak["rates"].values()) > 0
    lost = Job.of(plan, str(tmp_path / "lost"), "training", technique="lora", precision="fp32")
    with pytest.raises(PersonaeError, match=r"training lora fp32 personae: .*lost"):
        measure_together([lost], tmp_path)


def test_processes_of_a_round_take_turns_by_steps() -> None:
    plan = Plan(against="diffusers", rounds=2, precision="fp32", turns="steps")
    groups = together(jobs_of(plan, "toon"))
    sides = [each.side for each in groups[-1]]
    trained = [group for group in groups if group[0].kind == "training"]
    assert len(trained) == 2
    assert [each.round for each in trained[1]] == [1] * 7
    assert sum(each.side == "diffusers" for each in trained[0]) == 3
    assert sides in (["personae"], ["diffusers"])


def test_a_process_does_one_step_each_time_it_is_told_to(folder: Path, tmp_path: Path) -> None:
    plan = Plan(base=str(folder), device="cpu", turns="steps", **{**TINY, "steps": 3})
    lora = Job.of(plan, str(folder), "training", technique="lora", precision="fp32")
    with (tmp_path / "complaints").open("w+", encoding="utf-8") as complaints:
        process = WorkerProcess(lora, tmp_path, complaints)
        process.await_turn()
        told = 0
        while process.figures is None:
            process.go_on()
            told += 1
        process.close()
    assert told == 2


def test_a_process_that_ends_while_it_waits_is_told(folder: Path, tmp_path: Path) -> None:
    """As the system does where memory is short."""
    plan = Plan(base=str(folder), device="cpu", turns="steps", **TINY)
    lora = Job.of(plan, str(folder), "training", technique="lora", precision="fp32")
    with (tmp_path / "complaints").open("w+", encoding="utf-8") as complaints:
        process = WorkerProcess(lora, tmp_path, complaints)
        process.await_turn()
        process._process.kill()
        process._process.wait()
        with pytest.raises(PersonaeError, match=r"training lora .*its process ended with -9"):
            process.go_on()
        process.close()


def test_two_processes_in_memory_together_measure_as_one_alone(
    folder: Path, tmp_path: Path
) -> None:
    plan = Plan(base=str(folder), device="cpu", turns="steps", **{**TINY, "steps": 3})
    both = [
        Job.of(plan, str(folder), "training", technique="lora", precision="fp32", side=side)
        for side in ("personae", "diffusers")
    ]
    ours, theirs = measure_together(both, tmp_path)
    assert "forecast_bytes" in ours
    assert "forecast_bytes" not in theirs
    assert min(ours["step_seconds"], theirs["step_seconds"]) > 0
