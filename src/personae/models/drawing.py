"""How pictures are drawn with a base: by which samplers, and under which guidance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from personae.core.registry import nearest
from personae.errors import UsageError
from personae.models.samplers import Sampler, at_the_start


class Drawing:
    """The part of a family that draws.

    A class sets `samplers` (a table of `samplers.py`, or one of its own) and `usual_sampler`, the
    one that pictures are drawn with where nobody names another.

    Attributes:
        scheduler_config: what the samplers are made from.
        device: where their times are.
    """

    name: ClassVar[str]
    samplers: ClassVar[dict[str, Sampler]]
    usual_sampler: ClassVar[str]
    scheduler_config: dict[str, Any]
    device: torch.device

    def scheduler(self, name: str, steps: int, shape: Sequence[int]) -> Any:
        """Return a sampler, a diffusers scheduler whose `steps` times are set.

        One that adds noise takes it from `generator`, an argument of its `step`: one a row.

        Args:
            name: one of `samplers`.
            steps: from noise to picture.
            shape: of one picture's latents, (c, h, w).

        Raises:
            UsageError: the family has no such sampler.
        """
        scheduler = self.sampler(name)
        scheduler.set_timesteps(steps, device=self.device)
        return at_the_start(scheduler)

    def sampler(self, name: str, changes: Mapping[str, Any] = {}) -> Any:
        """Return sampler `name`, its times not set; `changes` are laid over `scheduler_config`."""
        if name not in self.samplers:
            raise UsageError(
                f"sampler is '{name}'; {self.name} has {', '.join(self.samplers)}."
                f"{nearest(name, self.samplers)}"
            )
        return self.samplers[name]({**self.scheduler_config, **changes})

    def is_guided(self, scale: float) -> bool:
        """Say whether drawing at guidance `scale` needs predictions without the prompt, too."""
        return scale > 1

    def guide(self, without: Tensor, following: Tensor, scale: float) -> Tensor:
        """Return the guided prediction; 1 is that of the prompt alone.

        Source: Ho and Salimans 2022, arXiv:2207.12598, equation 6, with scale = 1 + w.

        Args:
            without: predictions for the negative prompt, (b, c, h, w); following: for the prompt.
            scale: guidance scale.
        """
        return without + scale * (following - without)
