"""What every training step shares: checkpoints, a moving average, a log, a rate schedule, a helper process.

A training can be killed at any moment and started again with the same command: it goes on from
`$TOON_WORK/<step>/checkpoint.pt`, written atomically every few minutes and on SIGTERM. Of several processes that
train one model, each has its own checkpoint there (`checkpoint-1.pt` ...), and all write to one `log.jsonl`.
"""

from __future__ import annotations

import copy
import fcntl
import json
import os
import signal
import time
from pathlib import Path
from typing import IO

import torch
from torch import nn

from data import DEVICE, work_folder


def write_atomically(state: object, file: Path) -> None:
    """`torch.save` to a temporary file that then replaces `file`."""
    part = file.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, file)


class Average:
    """Exponential moving average of a model's parameters, updated every few steps; buffers are copied."""

    def __init__(self, model: nn.Module, halflife: float, every: int = 4) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay, self.every = 0.5 ** (every / halflife), every

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move towards `model`; early on the average is a short one, so that it does not keep the start."""
        if step % self.every:
            return
        decay = min(self.decay, (step + 1) / (step + 1 + 10 * self.every))
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), 1 - decay)
        for kept, current in zip(self.model.buffers(), model.buffers(), strict=True):
            kept.copy_(current)


class Peer:
    """Lets several processes train one model: each leaves its weights in a file and takes in the others'.

    Every `every` steps a process writes its weights and moves to the mean of them and those of the others that are
    new since the last look. Nobody waits, so a process that gets little time slows nobody down.
    """

    def __init__(self, folder: Path, rank: int, every: int = 50) -> None:
        self.folder, self.mine, self.every = folder, folder / f"peer{rank}.pt", every
        self.seen = time.time()

    @torch.no_grad()
    def exchange(self, model: nn.Module, step: int) -> None:
        """Average with the other processes where it is time and where they have something new."""
        if step % self.every:
            return
        parameters, since, self.seen = list(model.parameters()), self.seen, time.time()
        others = [f for f in self.folder.glob("peer*.pt") if f != self.mine and f.stat().st_mtime > since]
        for count, file in enumerate(others, start=2):
            theirs = torch.load(file, map_location=DEVICE, weights_only=True)
            torch._foreach_lerp_(parameters, theirs, 1 / count)
        write_atomically([p.detach() for p in parameters], self.mine)


def locked(file: Path) -> IO[str]:
    """Hold a file for this process alone, until it ends; ends the program where another process holds it."""
    holder = file.open("a")
    try:
        fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise SystemExit(f"{file.parent} is being trained by another process; stop that one first") from None
    return holder


class Run:
    """One training run: its folder, its state on disk, its log, and when it has to stop."""

    def __init__(
        self, name: str, minutes: float, decay_minutes: float = 0, save_seconds: float = 180, peer: int = 0
    ) -> None:
        self.folder, self.peer = work_folder() / name, peer
        self.folder.mkdir(parents=True, exist_ok=True)
        end = f"-{peer}" if peer else ""
        self.checkpoint, self.constant = self.folder / f"checkpoint{end}.pt", self.folder / f"constant{end}.pt"
        self.lock = locked(self.folder / f"checkpoint{end}.lock")
        self.state: dict[str, object] = {}
        self.step, self.seconds, self.pictures = 0, 0.0, 0
        self.resumed_at = 0
        self.began = self.saved = self.logged = time.monotonic()
        self.limit, self.decay, self.save_seconds = minutes * 60, decay_minutes * 60, save_seconds
        self.sums: dict[str, float] = {}
        self.parts, self.new_pictures = 0, 0
        self.stopped = False
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)

    def _stop(self, *_: object) -> None:
        self.stopped = True

    def keep(self, **parts: object) -> None:
        """Name what has a `state_dict` and belongs into the checkpoint; read it back where there is one."""
        self.state = parts
        if self.constant.exists():
            os.replace(self.constant, self.checkpoint)
        first = self.folder / "checkpoint.pt"
        if not self.checkpoint.exists() and not first.exists():
            return
        joins = not self.checkpoint.exists()  # a process more than there were: it starts where the first one is
        saved = torch.load(first if joins else self.checkpoint, map_location="cpu", weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        self.step = self.resumed_at = saved["step"]
        if not joins:
            self.seconds, self.pictures = saved["seconds"], saved["pictures"]
            torch.set_rng_state(saved["torch"])

    def save(self, file: Path | None = None) -> None:
        """Write the whole state."""
        state = {name: part.state_dict() for name, part in self.state.items()}
        state |= {"step": self.step, "seconds": self.total_seconds, "pictures": self.pictures}
        state |= {"torch": torch.get_rng_state()}  # numpy draws from generators made from the step
        write_atomically(state, file or self.checkpoint)
        self.saved = time.monotonic()

    @property
    def total_seconds(self) -> float:
        """Seconds of training in all, earlier sittings included."""
        return self.seconds + time.monotonic() - self.began

    def factor(self, warmup: int) -> float:
        """What to multiply the learning rate by: it rises for `warmup` steps, and falls in the last minutes.

        The state before the fall is kept as `constant.pt`, and the next sitting goes on from that.
        """
        left = self.limit - (time.monotonic() - self.began)
        if not self.decay or left >= self.decay:
            return min(1.0, (self.step + 1) / warmup)
        if not self.constant.exists():
            self.save(self.constant)
        return max(0.03, left / self.decay)

    def going(self) -> bool:
        """Whether to make another step; saves where it is time, and at the end. A sitting makes at least one."""
        over = time.monotonic() - self.began > self.limit and self.step > self.resumed_at
        end = self.stopped or over
        if end or time.monotonic() - self.saved > self.save_seconds:
            self.save()
        return not end

    def count(self, pictures: int, **losses: float) -> None:
        """Note one step over `pictures` pictures and its losses."""
        self.step += 1
        self.pictures += pictures
        self.new_pictures += pictures
        self.parts += 1
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def log(self, every: int, **extra: float) -> None:
        """Every `every` steps write a line with the mean losses since the last line and the rate."""
        if self.step % every:
            return
        now = time.monotonic()
        line = {"time": round(time.time()), "peer": self.peer, "step": self.step, "pictures": self.pictures}
        line |= {"hours": round(self.total_seconds / 3600, 4)}
        line |= {name: round(value / self.parts, 5) for name, value in self.sums.items()}
        seconds = now - self.logged
        line |= {"steps_per_second": round(self.parts / seconds, 3)}
        line |= {"pictures_per_hour": round(self.new_pictures / seconds * 3600)} | extra
        with (self.folder / "log.jsonl").open("a") as out:
            out.write(json.dumps(line) + "\n")
        self.logged, self.parts, self.new_pictures, self.sums = now, 0, 0, {}


def one_thread() -> None:
    """Use one thread; two trainings with more than one each on the same cores stall each other."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
