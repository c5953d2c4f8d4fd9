"""Shows where the time of a training step goes, by kind of work, beside what the machine can do.

    python benchmarks/step_profile.py [technique] [resolution] [acceleration]

A base of Stable Diffusion 1.5's shape in bf16, batch 1, on the processor. Milliseconds of a step,
means of `STEPS` steps after some to warm up; attention's backward pass in threads of its own counts
by what the main thread waits for it.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from personae.benchmark.bench import where
from personae.benchmark.jobs import Job, Plan
from personae.benchmark.machine import peak_rates
from personae.benchmark.noise_character import paint_character
from personae.benchmark.operations import operations
from personae.core.devices import HOST
from personae.training.events import Step
from personae.training.settings import RunConfig
from personae.training.train import train

WARM, STEPS = 4, 3
RANK = 4  # of a LoRA: a product with such a side is one of its own
KINDS = {
    "attention": ("attention", "softmax", "bmm", "_Recomputed"),
    "convolutions": ("convolution",),
    "products": ("mm", "matmul", "linear"),
    "copies": ("copy_", "cat", "clone"),
    "norms": ("norm",),
    "elementwise": ("add", "mul", "sub", "div", "gelu", "silu", "sum", "square"),
}
REST = "Python, views, allocation"


def kind_of(name: str, shapes: list[list[int]]) -> str:
    """Return the kind of work of an operator that was called with inputs of `shapes`."""
    name = name.removeprefix("aten::")
    for kind, words in KINDS.items():
        if any(word in name for word in words):
            thin = kind == "products" and any(RANK in shape for shape in shapes)
            return "products of the LoRA" if thin else kind
    return REST


def profiled(technique: str, resolution: int, acceleration: str) -> tuple[Counter[str], float]:
    """Return milliseconds of a step by kind, and of the step without a profiler."""
    with tempfile.TemporaryDirectory() as folder:
        character = paint_character(Path(folder) / "character", 1, resolution, seed=0)
        config = RunConfig.read(
            {
                "character": str(character),
                "base": where(Plan(base="sd15-shape")),
                "technique": technique,
                "precision": "bf16",
                "acceleration": acceleration,
                "schedule": {"resolution": resolution, "batch_size": 1, "prior": "none"},
                "settings": {technique: {"rank": RANK} if technique == "lora" else {}},
                **dict.fromkeys(("preview_every", "validate_every", "checkpoint_every"), 10**6),
            }
        )
        steps = (e for e in train(config, Path(folder) / "run") if isinstance(e, Step))
        for _ in range(WARM):
            next(steps)
        started = time.perf_counter()
        for _ in range(STEPS):
            next(steps)
        plain = (time.perf_counter() - started) / STEPS * 1e3
        with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
            for _ in range(STEPS):
                next(steps)
    found: Counter[str] = Counter()
    for row in profiler.key_averages(group_by_input_shape=True):
        found[kind_of(row.key, row.input_shapes)] += row.self_cpu_time_total / STEPS / 1e3
    return found, plain


def reading_rate() -> float:
    """Return the bytes a second at which memory is read, of numbers no cache holds."""
    numbers = torch.ones(2**27, dtype=torch.int64)
    best = 1e9
    for _ in range(5):
        started = time.perf_counter()
        numbers.sum()
        best = min(best, time.perf_counter() - started)
    return numbers.nbytes / best


def main() -> None:
    """Print the table of one technique."""
    given = [*sys.argv[1:], *("lora", "256", "auto")[len(sys.argv) - 1 :]]
    technique, resolution, acceleration = given[0], int(given[1]), given[2]
    found, plain = profiled(technique, resolution, acceleration)
    total = sum(found.values())
    print(f"{technique}, {resolution} px, {acceleration}: {plain:.0f} ms, profiled {total:.0f} ms")
    for kind, milliseconds in found.most_common():
        print(f"{kind:>28} {milliseconds:7.0f} ms {milliseconds / total:4.0%}")
    plan = Plan(base="sd15-shape", resolution=resolution, precision="bf16", rank=RANK)
    job = Job.of(plan, where(plan), "operations", precision="bf16", technique=technique)
    count = operations(job)["operations"]
    peak = max(peak_rates(HOST, torch.bfloat16, time.perf_counter).values())
    print(f"{count / 1e9:.0f} G operations at the peak of {peak / 1e9:.0f} G/s: "
          f"{count / peak * 1e3:.0f} ms")  # fmt: skip
    weights = sum(path.stat().st_size for path in Path(job.base, "unet").glob("*.safetensors"))
    rate = reading_rate()
    print(f"{weights / 2**30:.1f} GiB of weights read twice at {rate / 1e9:.0f} GB/s: "
          f"{2 * weights / rate * 1e3:.0f} ms")  # fmt: skip


if __name__ == "__main__":
    main()
