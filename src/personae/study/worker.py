"""What the process of one cell does: train, draw, measure, write the result.

python -m personae.study.worker FOLDER [CELLS SIDE BY SIDE]
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from personae.characters.character import Character
from personae.core.devices import HOST
from personae.core.event import Event
from personae.core.memory import peak_bytes, resident_bytes
from personae.core.unforeseen import in_words
from personae.errors import CharacterError, PersonaeError
from personae.evaluation.judge import Judge, save_pictures
from personae.evaluation.suite import Request
from personae.generation.picture import Picture
from personae.models.family import Family
from personae.models.load import load_base
from personae.study.budget import Budget
from personae.study.cell import Cell
from personae.study.handling_costs import handling_costs
from personae.study.learning_curve import learning_curve
from personae.study.result import CellResult
from personae.training.events import Finished, Kept, Scored, Step, StoppedEarly
from personae.training.run_folder import RunFolder
from personae.training.settings import RunConfig
from personae.training.train import train
from personae.version import __version__

logger = logging.getLogger(__name__)
WARM_STEPS, TIMED_STEPS = 3, 12
WATCH_SECONDS = 1.0


def run_cell(cell: Cell, beside: int = 1) -> None:
    """Measure a cell and write its result.

    Args:
        cell: what to measure.
        beside: how many cells share the machine, which makes its times longer.

    Raises:
        PersonaeError: it cannot be measured.
    """
    spec = cell.spec
    character = Character.open(spec.run.character)
    if not character.held_out:
        raise CharacterError(
            f"{spec.run.character}: has {len(character.references)} pictures, too few to hold any "
            "out, so likeness cannot be measured; bring at least 5, or set held_out in "
            "character.toml"
        )
    run = spec.run
    base = load_base(
        run.base, device=run.device, precision=run.precision, acceleration=run.acceleration
    )
    match spec.kind:
        case "trained":
            measured = _trained(cell, base, character)
        case "untouched":
            measured = _untouched(cell, base, character)
        case "real":
            measured = _real(cell, base, character)
    about = _about(cell, base, character)
    cell.write_result(CellResult(side_by_side=beside, **about, **measured))


def _about(cell: Cell, base: Family, character: Character) -> dict[str, Any]:
    """Return the fields of `CellResult` that say what was measured."""
    spec = cell.spec
    return {
        "row": spec.row,
        "technique": spec.run.technique if spec.kind == "trained" else spec.kind,
        "seed": spec.run.seed,
        "swept": spec.swept,
        "character": {
            "name": character.name,
            "class_noun": character.class_noun,
            "fingerprint": character.fingerprint,
            "pictures": len(character.references),
            "held_out": len(character.held_out),
            "folder": str(spec.run.character),
        },
        "base": {
            "source": base.source,
            "fingerprint": base.fingerprint,
            "device": base.device.type,
            "precision": base.precision,
        },
        "version": __version__,
    }


def _trained(cell: Cell, base: Family, character: Character) -> dict[str, Any]:
    """Train and measure; return the fields of `CellResult` that say what came out."""
    trained = _train(cell, base, character)
    judge = Judge.of(cell.spec.run.judging, base, character)
    untouched = judge.untouched()
    cast, handling = handling_costs(trained.artifact, character.name, base)
    with cast.on(base):
        requests = judge.requests(f"{{{character.name}}}")
        started = time.perf_counter()
        pictures = judge.draw(requests, cast)
        per_picture = (time.perf_counter() - started) / len(pictures)
        of_class = judge.draw(judge.class_requests(), cast)
    scores = judge.measure(requests, pictures, of_class, untouched)
    return {
        "artifact": str(trained.artifact.relative_to(cell.folder)),
        "content_hash": next(iter(cast.members.values())).artifact.card.content_hash,
        "costs": trained.costs | handling.costs() | {"seconds_per_picture": per_picture},
        "training": trained.record,
        "curve": learning_curve(RunFolder(cell.training)),
        "scores": scores,
        **_saved(cell, judge, requests, pictures, of_class),
    }


def _untouched(cell: Cell, base: Family, character: Character) -> dict[str, Any]:
    """Measure the base alone: what the character gains by training."""
    judge = Judge.of(cell.spec.run.judging, base, character)
    of_class = judge.untouched()
    requests = judge.requests(character.class_noun)
    started = time.perf_counter()
    pictures = judge.draw(requests)
    per_picture = (time.perf_counter() - started) / len(pictures)
    scores = judge.measure(requests, pictures, of_class, of_class)
    return {
        "costs": {"seconds_per_picture": per_picture},
        "scores": scores,
        **_saved(cell, judge, requests, pictures, of_class),
    }


def _real(cell: Cell, base: Family, character: Character) -> dict[str, Any]:
    """Measure the real pictures themselves: what no technique can be expected to exceed."""
    judge = Judge.of(cell.spec.run.judging, base, character)
    files = []
    for number, reference in enumerate(character.held_out):
        path = cell.pictures / f"held_out-{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        reference.image().save(path)
        files.append({"shot": "held_out", "seed": number, "prompt": "", "file": path.name})
    return {"costs": {}, "scores": judge.measure_real(), "pictures": files}


def _saved(
    cell: Cell,
    judge: Judge,
    requests: Sequence[Request],
    pictures: Sequence[Picture],
    of_class: Sequence[Picture],
) -> dict[str, Any]:
    """Write the pictures of a cell; return the fields of `CellResult` that say which they are."""
    folder = cell.pictures
    return {
        "pictures": save_pictures(folder, requests, pictures),
        "class_pictures": save_pictures(folder / "class", judge.class_requests(), of_class),
        "recipe": pictures[0].recipe.sampling.model_dump(mode="json"),
    }


@dataclass(slots=True)
class _Trained:
    """What training gave: the file, what it cost, and its record from the artifact's card."""

    artifact: Path
    costs: dict[str, float]
    record: dict[str, Any] = field(default_factory=dict)


def _train(cell: Cell, base: Family, character: Character) -> _Trained:
    """Train, or go on with what an earlier process began, or take what it finished."""
    folder = RunFolder(cell.training)
    memory, before = 0, _resident(base)
    if folder.result() is None:
        config = _at_budget(cell, base, character)
        scored = False
        for event in train(config, folder.path, resume=folder.is_begun, base=base):
            scored = scored or isinstance(event, Scored | Finished)
            if isinstance(event, Step) and not scored:
                memory = peak_bytes(base.device)  # of training alone: nothing is drawn yet
            _note(event)
    result = folder.finished()
    record = result.training
    known = {
        "seconds": record.seconds,
        "peak_bytes": memory or record.peak_bytes,
        "added_bytes": max(0, memory - before) if memory and before else None,
        "parameters": record.parameters,
        "file_bytes": result.file_bytes,
    }
    costs = {name: amount for name, amount in known.items() if amount is not None}
    return _Trained(folder.path / result.artifact, costs, record.model_dump())


def _resident(base: Family) -> int:
    """Return the memory held before training; 0 on devices with memory of their own."""
    return resident_bytes() if base.device == HOST else 0


def _note(event: Event) -> None:
    if isinstance(event, StoppedEarly | Kept):
        logger.info("%s", event.reason)


def _at_budget(cell: Cell, base: Family, character: Character) -> RunConfig:
    """Return the settings of the run, as long as the study's budget allows."""
    spec, budget = cell.spec, Budget.parse(cell.spec.budget)
    run = spec.run.model_copy(update={"preview_prompts": ["{character}"]})
    if run.schedule.steps is not None:
        return _without_previews(run)
    pictures = len(character.references)
    steps = budget.steps(run.schedule, base, pictures, spec.techniques or [run.technique])
    if budget.kind == "seconds" and budget.amount is not None:
        steps = max(1, int(budget.amount / _seconds_per_step(run, base)))
    if steps is None:
        return run
    schedule = run.schedule.model_copy(update={"steps": steps})
    return _without_previews(run.model_copy(update={"schedule": schedule}))


def _without_previews(run: RunConfig) -> RunConfig:
    """Return settings that draw previews only at the end, where they prove the file."""
    return run.model_copy(update={"preview_every": run.schedule.steps})


def _seconds_per_step(run: RunConfig, base: Family) -> float:
    """Return the median of a few steps, timed in a run that is thrown away."""
    schedule = run.schedule.model_copy(update={"steps": WARM_STEPS + TIMED_STEPS + 1})
    probe = run.model_copy(update={"schedule": schedule, "keep": "last"})
    with tempfile.TemporaryDirectory() as folder:
        events = train(probe, Path(folder) / "probe", base=base)
        steps = (event.seconds for event in events if isinstance(event, Step))
        timed = list(islice(steps, WARM_STEPS, WARM_STEPS + TIMED_STEPS))
        events.close()
    return median(timed)


def main(folder: str, beside: str = "1") -> int:
    """Run the cell of a folder, one of `beside`; whatever breaks becomes its result."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    _end_with_parent()
    cell = Cell.read(folder)
    try:
        run_cell(cell, int(beside))
    except PersonaeError as error:
        cell.fail(str(error))
    except Exception as error:  # the job runner: a cell that breaks must not stop the study
        logger.exception("the cell broke")
        cell.fail(in_words(error, f"{cell.folder / 'log.txt'} shows where it arose"))
    return 0


def _end_with_parent() -> None:
    """End this process when whoever started it is gone, so that no cell runs on unseen."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
