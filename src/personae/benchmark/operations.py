"""How many operations a training step has, counted on shapes alone.

Attention is taken apart into matrix products while counting, since its fused kernels are not
counted on every device; nothing is computed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from personae.benchmark.jobs import Job
from personae.benchmark.noise_character import CLASS_NOUN, NAME
from personae.benchmark.plain_loop import PlainLoop, inputs
from personae.core.devices import SHAPES_ONLY
from personae.core.registry import lookup
from personae.core.seeds import generator_for
from personae.models.family import Family
from personae.models.load import load_base
from personae.techniques.technique import Technique


def operations(job: Job) -> dict[str, float]:
    """Return the operations of a step and what is trained; a multiply-add counts as two."""
    with sdpa_kernel(SDPBackend.MATH):
        loss, parameters = _plain(job) if job.side == "diffusers" else _ours(job)
        with FlopCounterMode(display=False) as counter:
            loss().backward()
    return {"operations": counter.get_total_flops(), "parameters": parameters}


def _ours(job: Job) -> tuple[Callable[[], Tensor], int]:
    """Return our loss: latents come from the cache, and so do texts that stay as they are."""
    base = load_base(job.base, device=str(SHAPES_ONLY), precision="fp32")
    technique = new_technique(job, base).train().inject()
    side = job.resolution or base.resolution
    noisy = torch.randn(job.batch, *base.latent_shape(side, side), device=SHAPES_ONLY)
    times = torch.zeros(job.batch, dtype=torch.long, device=SHAPES_ONLY)
    captions = [technique.phrase(NAME, CLASS_NOUN)] * job.batch
    cached = None if technique.trains_text else base.encode_text(captions)

    def loss() -> Tensor:
        text = cached or base.encode_text(captions)
        return base.denoise(noisy, times, text).square().mean()

    return loss, technique.parameter_count


def _plain(job: Job) -> tuple[Callable[[], Tensor], int]:
    loop = PlainLoop(
        Path(job.base), job.technique, dtype=torch.float32, device=SHAPES_ONLY, rank=job.rank
    )
    batch = inputs(job.batch, job.resolution or loop.side)
    return partial(loop.loss, **batch), sum(each.numel() for each in loop.trained)


def new_technique(job: Job, base: Family) -> Technique:
    """Return the technique of a job, not trained and not attached."""
    kind = lookup(Technique, job.technique)
    config = kind.settings_for(kind.Config.parse(job.settings), NAME, CLASS_NOUN)
    return kind(config, base, generator_for(0, "start"))
