"""Trains `toon` on processors that have nothing else to do, detached from the terminal.

    python background.py start        prepares what is missing, renders, trains; returns at once
    python background.py status       pictures seen, pictures an hour, loss
    python background.py pause        stops all of it for a while, for a timing say; `continue` lets it go on
    python background.py stop         ends it after a checkpoint; `start` goes on from there

All of it runs at idle priority: any other work comes first. Needs nothing but Python itself.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

from progress import log_lines, progress

HERE = Path(__file__).resolve().parent
WORK = Path(os.environ.get("TOON_WORK", Path.home() / ".cache" / "personae" / "toon"))
FOLDER = WORK / "background"
LOCK, PAUSED, OUTPUT = FOLDER / "lock", FOLDER / "paused", FOLDER / "output.txt"
LOG = WORK / "denoiser" / "log.jsonl"
MOST_PEERS = 8
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000", "MALLOC_TOP_PAD_": "67108864"}
"""Lets glibc use freed memory again instead of asking the kernel for new pages: a step takes 9 % less."""
STOP_SECONDS = 180
RETRY_SECONDS = 60


def cores() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def step_aside() -> None:
    """Give this process, and all that it starts, the lowest priority there is."""
    os.nice(19)
    if hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    with contextlib.suppress(OSError):  # a desktop's kernel gives each session an equal share, whatever it runs
        Path("/proc/self/autogroup").write_text("19")


def take_lock() -> IO[str] | None:
    """Hold the lock for this process and write its id there; nothing where another process holds it."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    file = LOCK.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def running() -> int | None:
    """The id of the process that watches over the training, which leads a process group; None where there is none."""
    if not LOCK.exists():
        return None
    with LOCK.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return int(file.read() or 0) or None
    return None


class Watch:
    """Keeps everything going that has to: what prepares, the renderer, the latents, one training a core."""

    def __init__(self, peers: int, render: str, denoiser: list[str]) -> None:
        self.peers, self.render, self.denoiser = peers, render, denoiser
        self.children: dict[str, subprocess.Popen] = {}
        self.done: set[str] = set()
        self.failed: dict[str, float] = {}
        self.stopped = False
        signal.signal(signal.SIGTERM, self._stop)

    def _stop(self, *_: object) -> None:
        self.stopped = True

    def keep(self, name: str, command: list[str]) -> None:
        """Start a command where it does not run; one that failed is started again after a while."""
        if name in self.children or time.monotonic() < self.failed.get(name, 0):
            return
        print(time.strftime("%F %T"), "starts", name, *command, flush=True)
        self.children[name] = subprocess.Popen(command, cwd=HERE, stdin=subprocess.DEVNULL)

    def look(self) -> None:
        """Note which commands ended, and start those whose turn it is."""
        for name, child in list(self.children.items()):
            if child.poll() is not None:
                print(time.strftime("%F %T"), "ended", name, "with code", child.returncode, flush=True)
                del self.children[name]
                if child.returncode == 0:
                    self.done.add(name)
                else:
                    self.failed[name] = time.monotonic() + RETRY_SECONDS
        python = python_for_training()
        if python:
            self._work(python)
        else:
            self.keep("environment", ["make", "environment"])

    def _work(self, python: str) -> None:
        make = ["make", f"PYTHON={python}"]
        if "preparation" not in self.done:
            self.keep("preparation", [*make, "requirements", "render/node_modules"])
        elif "render" not in self.done:
            self.keep("render", [*make, "render", f"RENDER={self.render}"])
        rendered, frozen = shards("images*.bin"), latents()
        if rendered and "tokenizer" not in self.done:
            self.keep("tokenizer", [*make, "tokenizer"])
        if len(frozen) < len(rendered):
            self.keep("latents", [python, "autoencoder.py", "freeze", "--resolution", "128"])
        if frozen and "tokenizer" in self.done:
            for rank in range(self.peers):
                # a sitting lasts a year: what ends it is a signal
                options = ["--resolution", "128", "--minutes", "525600", "--peer", str(rank), *self.denoiser]
                self.keep(f"training {rank}", [python, "denoiser.py", *options])

    def run(self) -> None:
        """Look again and again until told to stop; then let everything end and save."""
        while not self.stopped:
            self.look()
            time.sleep(2)
        os.killpg(0, signal.SIGTERM)  # the grandchildren too: make would leave the renderer running
        for child in self.children.values():
            child.wait()
        print(time.strftime("%F %T"), "stopped", flush=True)


def python_for_training() -> str | None:
    """This Python where it has what a training needs, else that of the repository's own environment, if it is ready."""
    if all(importlib.util.find_spec(name) for name in ("torch", "diffusers", "transformers")):
        return sys.executable
    own = HERE.parents[1] / ".venv"
    return str(own / "bin" / "python") if (own / ".ready").exists() else None


def shards(pattern: str) -> list[Path]:
    """Files of the training split."""
    return sorted((WORK / "data" / "train").glob(pattern))


def latents() -> list[Path]:
    """Files of latents that belong to the autoencoder there is."""
    config = WORK / "autoencoder" / "frozen" / "config.json"
    written = config.stat().st_mtime if config.exists() else float("inf")
    return [file for file in shards("latents128-*.npy") if file.stat().st_mtime >= written]


def start(options: argparse.Namespace) -> str:
    """Start the watching process in a session of its own, so that it outlives the terminal."""
    if running():
        return f"already {'paused' if PAUSED.exists() else 'running'}\n{status()}"
    FOLDER.mkdir(parents=True, exist_ok=True)
    PAUSED.unlink(missing_ok=True)
    command = [sys.executable, str(HERE / "background.py"), "watch", *sys.argv[2:]]
    environment = (
        os.environ | KEEP_MEMORY | {"TOON_WORK": str(WORK), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    )
    for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES"):
        environment.pop(name, None)  # the calling make is gone by the time another one is started
    with OUTPUT.open("a") as output:
        child = subprocess.Popen(
            command, cwd=HERE, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
    for _ in range(100):
        if running() == child.pid:
            return f"started with {options.peers} processes; what they say goes to {OUTPUT}"
        if child.poll() is not None:
            break
        time.sleep(0.1)
    raise SystemExit(f"could not start; see {OUTPUT}")


def watch(options: argparse.Namespace) -> str:
    """The watching process itself."""
    lock = take_lock()
    if lock is None:
        raise SystemExit("already running")
    step_aside()
    Watch(options.peers, options.render, options.denoiser.split()).run()
    lock.close()
    return ""


def signalled(number: int) -> int:
    """Send a signal to the watching process and all that it started; returns its id."""
    leader = running()
    if not leader:
        raise SystemExit("not running; `make background` starts it")
    os.killpg(leader, number)
    return leader


def pause() -> str:
    """Stop every process where it is; memory is kept, processors are free."""
    signalled(signal.SIGSTOP)
    PAUSED.touch()
    return "paused; `make background-continue` lets it go on"


def go_on() -> str:
    """Let paused processes go on."""
    signalled(signal.SIGCONT)
    PAUSED.unlink(missing_ok=True)
    return "running"


def stop() -> str:
    """End everything; each training saves first. What takes too long is killed, and loses minutes."""
    leader = signalled(signal.SIGCONT)
    PAUSED.unlink(missing_ok=True)
    os.kill(leader, signal.SIGTERM)
    for _ in range(STOP_SECONDS * 5):
        if not running():
            return "stopped; `make background` goes on from here"
        time.sleep(0.2)
    os.killpg(leader, signal.SIGKILL)
    return f"killed, since a step took longer than {STOP_SECONDS} s; `make background` goes on from the last checkpoint"


def status() -> str:
    """What runs, and how far it is."""
    state = "not running; `make background` starts it"
    if running():
        state = "paused; `make background-continue` lets it go on" if PAUSED.exists() else "running"
    rendered, frozen = len(shards("images*.bin")), len(latents())
    lines = [f"state     {state}", f"data      {rendered} shards rendered, latents of {frozen}"]
    found = log_lines(LOG)
    return "\n".join(lines + (progress(found) if found else ["pictures  none yet"]) + [f"log       {LOG}"])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["start", "status", "pause", "continue", "stop", "watch"])
    parser.add_argument("--peers", type=int, default=min(cores(), MOST_PEERS), help="trainings; one a core by default")
    parser.add_argument("--render", default=f"--workers {cores()}", help="options of the renderer")
    training = "--rate 2.8e-3 --batch 128 --halflife 150"
    parser.add_argument("--denoiser", default=training, help="options of each training")
    options = parser.parse_args()
    actions = {"start": start, "watch": watch}
    plain = {"status": status, "pause": pause, "continue": go_on, "stop": stop}
    print(actions[options.action](options) if options.action in actions else plain[options.action]())


if __name__ == "__main__":
    main()
