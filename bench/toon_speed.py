"""How fast the embedded base trains, draws and switches, beside a plain diffusers loop.

    python bench/toon_speed.py --out docs/results/toon_speed.json

Training steps of ours and of the plain loop alternate in one process (A B A B ...); what is
reported are medians and their ratios. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from plain_loop import plain_step

from personae.artifact import Artifact, CharacterRecord
from personae.bases import load_base
from personae.batches import to_pixels
from personae.cast import Cast
from personae.character import Character
from personae.cropping import fit
from personae.devices import generator_for
from personae.families import sources
from personae.families.base import Family
from personae.generation import Shot, draw
from personae.pictures import Sampling
from personae.registry import discover
from personae.settings import RunConfig
from personae.techniques.base import Technique
from personae.workbench import Workbench, set_up

BATCH = 8
ROUNDS = 12


def seconds(action: Callable[[], object]) -> float:
    """Return how long `action` takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def bench_of(technique: str, character: Path, base: Family) -> Workbench:
    """Return a workbench that trains `technique` at batch 8 with its defaults, no prior."""
    schedule = {"batch_size": BATCH, "steps": 300, "prior": "none"}
    config = RunConfig.read(
        {"character": str(character), "technique": technique, "schedule": schedule}
    )
    events = list(set_up(config, Character.open(character), base))
    return events[-1]


def step_seconds(technique: str, folder: Path, character: Path, base: Family) -> dict[str, float]:
    """Return median seconds of a step: ours, and the plain loop's where there is one."""
    bench = bench_of(technique, character, base)
    references = Character.open(character).references
    size = (base.resolution, base.resolution)
    chosen = [references[i % len(references)] for i in range(BATCH)]
    pixels = torch.stack([to_pixels(fit(each.image(), size)[0]) for each in chosen])
    captions = [each.caption or "a character" for each in chosen]
    plain = None
    if technique in ("lora", "dreambooth"):
        plain = plain_step(folder, pixels, captions, technique=technique, rank=16)
    ours, theirs = [], []
    for i in range(ROUNDS + 2):
        ours.append(seconds(lambda i=i: bench.step(i)))
        if plain:
            theirs.append(seconds(plain))
    bench.eject()
    result = {"seconds_per_step": statistics.median(ours[2:])}
    if plain:
        result["plain_seconds_per_step"] = statistics.median(theirs[2:])
        result["times_faster"] = result["plain_seconds_per_step"] / result["seconds_per_step"]
    return result


def switch_seconds(technique: type[Technique], base: Family) -> float:
    """Return the median time from an artifact in memory to a base that draws with it."""
    settings = technique.settings_for(technique.Config(), "mira", "woman")
    made = technique(settings, base, generator_for(0))
    record = CharacterRecord(name="mira", class_noun="woman", phrase="mira woman")
    artifact = Artifact.of([made], base, character=record)
    cast = Cast()
    with cast.on(base):
        return statistics.median(seconds(lambda: cast.add("mira", artifact)) for _ in range(7))


def picture_seconds(base: Family) -> float:
    """Return the median time of one picture, 25 steps with guidance."""
    sampling = Sampling(steps=25)
    times = [
        seconds(lambda i=i: draw(base, [Shot("a woman at the beach", i)], sampling))
        for i in range(6)
    ]
    return statistics.median(times[1:])


def help_seconds() -> float:
    """Return the median time of `personae --help` in a new process."""
    command = [sys.executable, "-m", "personae", "--help"]
    run = lambda: subprocess.run(command, check=True, capture_output=True)  # noqa: E731
    return statistics.median(seconds(run) for _ in range(5))


def main() -> None:
    """Measure everything and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", default="toon")
    parser.add_argument("--character", type=Path, default=Path("examples/mira"))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    os.environ["PERSONAE_CACHE"] = tempfile.mkdtemp()
    folder = sources.embedded_bases().get(options.base, Path(options.base))
    load = seconds(lambda: load_base(options.base))
    base = load_base(options.base)
    techniques = discover("techniques", Technique)
    result = {
        "threads": torch.get_num_threads(),
        "precision": str(base.dtype),
        "load_seconds": load,
        "help_seconds": help_seconds(),
        "picture_seconds": picture_seconds(base),
        "switch_seconds": {name: switch_seconds(kind, base) for name, kind in techniques.items()},
        "training": {
            name: step_seconds(name, folder, options.character, base) for name in techniques
        },
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
