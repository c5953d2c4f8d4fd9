"""What every training step shares: checkpoints, a moving average, a log, a rate schedule, a helper process.

A training can be killed at any moment and started again with the same command: it goes on from
`$TOON_WORK/<step>/checkpoint.pt`, written atomically every few minutes and on SIGTERM.
"""

from __future__ import annotations

import copy
import json
import os
import signal
import time
from pathlib import Path

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
    """Lets two processes train one model: each leaves its weights in a file and takes in the other's.

    Every `every` steps a process writes its weights and, where the other's are new since the last look, moves
    half way to them. Nobody waits, so a process that gets little time slows nobody down.
    """

    def __init__(self, folder: Path, rank: int, every: int = 50) -> None:
        self.mine, self.other = (folder / f"peer{r}.pt" for r in (rank, 1 - rank))
        self.every, self.seen = every, time.time()

    @torch.no_grad()
    def exchange(self, model: nn.Module, step: int) -> None:
        """Average with the other process where it is time and where it has something new."""
        if step % self.every:
            return
        parameters = list(model.parameters())
        if self.other.exists() and self.other.stat().st_mtime > self.seen:
            self.seen = self.other.stat().st_mtime
            theirs = torch.load(self.other, map_location=DEVICE, weights_only=True)
            torch._foreach_lerp_(parameters, theirs, 0.5)
        write_atomically([p.detach() for p in parameters], self.mine)


class Run:
    """One training run: its folder, its state on disk, its log, and when it has to stop."""

    def __init__(self, name: str, minutes: float, decay_minutes: float = 0, save_seconds: float = 180) -> None:
        self.folder = work_folder() / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.checkpoint, self.constant = self.folder / "checkpoint.pt", self.folder / "constant.pt"
        self.state: dict[str, object] = {}
        self.step, self.seconds, self.pictures = 0, 0.0, 0
        self.resumed_at = 0
        self.began = self.saved = self.logged = time.monotonic()
        self.limit, self.decay, self.save_seconds = minutes * 60, decay_minutes * 60, save_seconds
        self.sums: dict[str, float] = {}
        self.parts = 0
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
        if not self.checkpoint.exists():
            return
        saved = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        self.step, self.seconds, self.pictures = saved["step"], saved["seconds"], saved["pictures"]
        self.resumed_at = self.step
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
        self.parts += 1
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def log(self, every: int, **extra: float) -> None:
        """Every `every` steps write a line with the mean losses since the last line and the rate."""
        if self.step % every:
            return
        now = time.monotonic()
        line = {
            "step": self.step,
            "pictures": self.pictures,
            "hours": round(self.total_seconds / 3600, 4),
        }
        line |= {name: round(value / self.parts, 5) for name, value in self.sums.items()}
        line |= {"steps_per_second": round(self.parts / (now - self.logged), 3)} | extra
        with (self.folder / "log.jsonl").open("a") as out:
            out.write(json.dumps(line) + "\n")
        self.logged, self.parts, self.sums = now, 0, {}


def one_thread() -> None:
    """Use one thread; two trainings with more than one each on the same cores stall each other."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
