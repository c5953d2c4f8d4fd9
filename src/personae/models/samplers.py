"""The samplers: every way from noise to a picture, by name, as schedulers of diffusers.

A family takes the table that fits its noise path. Those that add noise on the way take it from the
`generator` of their `step`, one generator for each row of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor

from personae.models.noise_path import SCHEDULER_TIMES

Sampler = Callable[[dict[str, Any]], Any]
"""Makes a scheduler of diffusers from the `scheduler_config` of a base."""

_SDE: Final[dict[str, Any]] = {"algorithm_type": "sde-dpmsolver++"}
_KARRAS: Final[dict[str, Any]] = {"use_karras_sigmas": True}


class FlowEuler(FlowMatchEulerDiscreteScheduler):  # type: ignore[misc]  # diffusers is untyped
    """diffusers' Euler steps along a flow, with the two members that its other samplers have."""

    init_noise_sigma = 1.0

    def scale_model_input(self, sample: Tensor, timestep: Tensor | None = None) -> Tensor:
        """Return the sample: a flow's noisy latents go to the network as they are."""
        return sample


def _ddim(config: Mapping[str, Any]) -> Any:
    """Return DDIM as latents need it: by default diffusers' class would cut them to [-1, 1]."""
    return DDIMScheduler.from_config({"clip_sample": False, **config})


def _flow(kind: type, changes: Mapping[str, Any], config: Mapping[str, Any]) -> Any:
    return kind(
        num_train_timesteps=SCHEDULER_TIMES,
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=config["shift"],
        **changes,
    )


DIFFUSION_SAMPLERS: Final[dict[str, Sampler]] = {
    "ddim": _ddim,
    "euler": EulerDiscreteScheduler.from_config,
    "euler_karras": partial(EulerDiscreteScheduler.from_config, **_KARRAS),
    "euler_a": EulerAncestralDiscreteScheduler.from_config,
    "dpm++2m": DPMSolverMultistepScheduler.from_config,
    "dpm++2m_karras": partial(DPMSolverMultistepScheduler.from_config, **_KARRAS),
    "dpm++2m_sde": partial(DPMSolverMultistepScheduler.from_config, **_SDE),
    "dpm++2m_sde_karras": partial(DPMSolverMultistepScheduler.from_config, **_SDE, **_KARRAS),
    "unipc": UniPCMultistepScheduler.from_config,
    "unipc_karras": partial(UniPCMultistepScheduler.from_config, **_KARRAS),
}
"""Samplers of families with a `Diffusion` path.

`euler_a` and the `sde` ones add noise at every step. The `karras` ones space the noise levels
evenly in sigma^(1/7) (Karras et al. 2022, arXiv:2206.00364, equation 5), the others as the base
says.
"""

FLOW_SAMPLERS: Final[dict[str, Sampler]] = {
    "euler": FlowEuler.from_config,
    "dpm++2m": partial(_flow, DPMSolverMultistepScheduler, {}),
    "dpm++2m_sde": partial(_flow, DPMSolverMultistepScheduler, _SDE),
    "unipc": partial(_flow, UniPCMultistepScheduler, {}),
}
"""Samplers of families with a `Flow` path; a flow spaces its levels by its shift alone."""


def at_the_start(scheduler: Any) -> Any:
    """Return `scheduler`, told that its first step is the first.

    diffusers would look for it by its time, and skip one where rounding made two times alike.
    """
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    return scheduler
