"""What families have in common whose latents become noise along a straight line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from personae.errors import BaseError
from personae.models.family import Family
from personae.models.noise_path import Flow, ShiftByTokens
from personae.models.samplers import FLOW_SAMPLERS, FlowEuler, at_the_start


class FlowFamily(Family):
    """A family with a `Flow` path; its samplers are shifted as the path is."""

    path: Flow
    samplers = FLOW_SAMPLERS
    usual_sampler = "euler"

    def scheduler(self, name: str, steps: int, shape: Sequence[int]) -> Any:
        """Return a sampler shifted for pictures of this size, its times set.

        Euler's are evenly spread from 1 to 1 / steps before the shift, as in diffusers' pipelines.
        """
        shift = self.drawing_shift(steps, shape)
        changes = {"shift": shift, "use_dynamic_shifting": False}
        # diffusers would drop what this list names, though it was changed.
        made = self.sampler(name, {**changes, "_use_default_values": []})
        if isinstance(made, FlowEuler):
            sigmas = torch.linspace(1.0, 1 / steps, steps).tolist()
            made.set_timesteps(sigmas=sigmas, device=self.device)
        else:
            made.set_timesteps(steps, device=self.device)
        return at_the_start(made)

    def drawing_shift(self, steps: int, shape: Sequence[int]) -> float:
        """Return the shift of a drawing in `steps` of latents of `shape` (c, h, w): the path's."""
        return self.path.shift_at(shape)


def flow_path(config: Mapping[str, Any], patch: int) -> Flow:
    """Return the path that a diffusers flow-matching scheduler of this `config` draws along.

    Args:
        config: of a FlowMatchEulerDiscreteScheduler.
        patch: side of the denoiser's tokens, in latents.

    Raises:
        BaseError: its shift is of a kind that is not known here.
    """
    if not config.get("use_dynamic_shifting"):
        return Flow(float(config.get("shift", 1.0)))
    if config.get("time_shift_type", "exponential") != "exponential":
        raise BaseError(
            f"the scheduler of this base has time_shift_type '{config['time_shift_type']}'; only "
            "'exponential' is known here"
        )
    tokens = config["base_image_seq_len"], config["max_image_seq_len"]
    return Flow(ShiftByTokens(tokens, (config["base_shift"], config["max_shift"]), patch))
