"""The memory that the passes of a step take, counted without computing them and remembered.

To be called with techniques attached, under torch's fake tensors: they have shapes and no values.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

import torch

from personae.allocation import peak_allocated
from personae.atomic import write_text
from personae.caches import default_folder
from personae.families.base import Family, Text
from personae.release import __version__
from personae.settings import RunConfig, Schedule
from personae.techniques.base import Technique


def pass_bytes(
    config: RunConfig, schedule: Schedule, base: Family, techniques: Sequence[Technique]
) -> int:
    """Return what the largest passes of a step take on the device of `base`.

    It takes seconds on a large base, so it is counted once on a machine.
    """
    facts = _facts(config, schedule, base)
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]
    path = default_folder() / "passes" / digest
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # not there, or damaged: count again
        found = peak_allocated(partial(_one_pass, base, techniques, schedule), base.device)
        write_text(path, str(found))
        return found


def _facts(config: RunConfig, schedule: Schedule, base: Family) -> dict[str, Any]:
    """Return all that the memory of a pass depends on."""
    own = {name: each.model_dump(mode="json") for name, each in config.technique_configs().items()}
    return {
        "torch": torch.__version__,
        "diffusers": version("diffusers"),
        "personae": __version__,
        "base": [base.fingerprint, base.narrow, str(base.dtype), base.device.type],
        "techniques": own,
        "rows": _rows(schedule),
        "side": schedule.resolution or base.resolution,
        "checkpointing": schedule.gradient_checkpointing,
        "update": schedule.update,
    }


def _one_pass(base: Family, techniques: Sequence[Technique], schedule: Schedule) -> None:
    """Do the largest forward and backward pass of a step, on whatever mode is in force."""
    rows = _rows(schedule)
    side = schedule.resolution or base.resolution
    noisy = torch.zeros(rows, *base.latent_shape(side, side))
    times = torch.ones(rows, dtype=torch.long)
    with torch.set_grad_enabled(any(each.trains_text for each in techniques)):
        one = base.encode_text(["a"])
    loss = base.denoise(noisy, times, Text.concatenate([one] * rows)).float().square().mean()
    # One thread for all devices, since fake tensors know of one; and it frees in one order.
    with torch.autograd.set_multithreading_enabled(False):
        loss.backward()


def _rows(schedule: Schedule) -> int:
    """Return the most pictures that go through the network together."""
    rows = max(part.stop - part.start for part in schedule.micro_batches)
    return rows * (1 if schedule.prior == "none" else 2)
