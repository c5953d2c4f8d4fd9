"""The memory that the passes of a step and previews take, counted without computing, remembered.

To be called with techniques attached, under torch's fake tensors: they have shapes and no values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from personae.core.cache import ValueCache, default_folder
from personae.generation.decoding import decode_tiled
from personae.generation.settings import Sampling
from personae.models.acceleration.wide_products import Room, Widening
from personae.models.family import Family
from personae.models.text import Text
from personae.techniques.technique import Technique
from personae.training.memory.counter import peak_allocated
from personae.training.preview_settings import sampling, together
from personae.training.schedule import Schedule
from personae.training.settings import RunConfig
from personae.version import __version__


def pass_bytes(
    config: RunConfig, schedule: Schedule, base: Family, techniques: Sequence[Technique]
) -> int:
    """Return what the largest passes of a step take on the device of `base`.

    It takes seconds on a large base, so it is counted once on a machine.
    """
    about = {
        "rows": schedule.most_rows,
        "side": schedule.resolution or base.resolution,
        "checkpointing": schedule.gradient_checkpointing,
        "update": schedule.update,
    }
    one_pass = partial(_one_pass, base, techniques, schedule)
    return _remembered(_facts(config, base) | about, one_pass, base.device)


def drawing_bytes(config: RunConfig, schedule: Schedule, base: Family) -> int:
    """Return what drawing previews takes on the device of `base`; networks do not count."""
    how = sampling(config, schedule, base)
    rows = 2 * min(together(config), max(1, len(config.preview_prompts)))  # guidance doubles them
    rows = min(rows, how.rows_at_once or rows)
    about = {"drawn": rows, "sampling": how.model_dump(mode="json")}
    one_batch = partial(_one_batch, base, how, rows)
    return _remembered(_facts(config, base) | about, one_batch, base.device)


def _remembered(facts: dict[str, Any], run: Callable[[], None], device: torch.device) -> int:
    """Return the most bytes that `run` takes, counted once on a machine for the same facts."""
    counted = partial(_widening, run) if facts["widened"] else run
    kept = ValueCache(default_folder() / "passes", int)
    return kept.get(facts, partial(peak_allocated, counted, device))


def _widening(run: Callable[[], None]) -> None:
    with Widening(Room()):
        run()


def _facts(config: RunConfig, base: Family) -> dict[str, Any]:
    """Return what the memory of every pass depends on."""
    own = {name: each.model_dump(mode="json") for name, each in config.technique_configs().items()}
    return {
        "torch": torch.__version__,
        "diffusers": version("diffusers"),
        "personae": __version__,
        "base": [base.fingerprint, base.quantised, str(base.dtype), base.device.type],
        "widened": base.widened,
        "techniques": own,
    }


def _one_pass(base: Family, techniques: Sequence[Technique], schedule: Schedule) -> None:
    """Do the largest forward and backward pass of a step, on whatever mode is in force."""
    rows = schedule.most_rows
    side = schedule.resolution or base.resolution
    noisy = torch.zeros(rows, *base.latent_shape(side, side))
    times = base.path.spread(rows, noisy.shape[1:])
    with torch.set_grad_enabled(any(each.trains_text for each in techniques)):
        one = base.encode_text(["a"])
    loss = base.denoise(noisy, times, Text.concatenate([one] * rows)).float().square().mean()
    # One thread for all devices, since fake tensors know of one; and it frees in one order.
    with torch.autograd.set_multithreading_enabled(False):
        loss.backward()


@torch.no_grad()
def _one_batch(base: Family, how: Sampling, rows: int) -> None:
    """Draw a batch of previews as far as memory is concerned: one pass, then one decoding."""
    width, height = how.width or base.resolution, how.height or base.resolution
    latents = torch.zeros(rows, *base.latent_shape(width, height))
    times = base.path.spread(rows, latents.shape[1:])
    base.denoise(latents, times, Text.concatenate([base.encode_text(["a"])] * rows))
    tile = how.tile or max(width, height)
    decode_tiled(_first_tiles(base), latents[:1], base.latent_shape(tile, tile)[1])


def _first_tiles(base: Family) -> Callable[[Tensor], Tensor]:
    """Return the decoding of tiles, only shapes from the third on: each takes as much."""
    shapes: list[torch.Size] = []

    def decode(latents: Tensor) -> Tensor:
        if len(shapes) == 2:
            return torch.zeros(shapes[0], device=base.device)
        pixels = base.decode_image(latents)
        shapes.append(pixels.shape)
        return pixels

    return decode
