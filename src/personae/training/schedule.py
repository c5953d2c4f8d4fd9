"""How long a run learns and how fast: the settings of its steps."""

from __future__ import annotations

import math
from typing import Literal, Self, TypeVar

from pydantic import Field, field_validator, model_validator

from personae.core.config import Config
from personae.errors import UsageError
from personae.models.recommended import Recommended
from personae.training.optim.names import OWN_RATES, check_optimizer

T = TypeVar("T")
Extent = Literal["none", "selective", "full"]
"""Of the activations that are computed again in the backward pass."""


class Schedule(Config, allow_inf_nan=False):
    """How long and how a technique is trained. What is left out comes from the technique."""

    steps: int | None = Field(default=None, ge=1, le=10_000_000)
    """Optimiser steps. Default: from the number of pictures and the batch size."""
    batch_size: int = Field(default=4, ge=1, le=4096)
    """Pictures in one batch."""
    gradient_accumulation: int = Field(default=1, ge=1, le=65_536)
    """Batches in one optimiser step."""
    micro_batch: int | None = Field(default=None, ge=1, le=4096)
    """Pictures of a batch in one forward and backward pass: same gradient, less memory. Default:
    the whole batch."""
    learning_rate: float | None = Field(default=None, gt=0, le=1000)
    """Peak learning rate. Default: the technique's own; 1 for prodigy, which finds it."""
    weight_decay: float | None = Field(default=None, ge=0, le=1000)
    """Decoupled weight decay. Default: the technique's own."""
    optimizer: str = "adamw"
    """adamw, adamw8bit (states of a byte each), adafactor (factored states, without momentum) or
    prodigy (needs prodigyopt)."""
    update: Literal["after_backward", "in_backward"] = "after_backward"
    """When weights move: after the backward pass, or tensor by tensor inside it, which never
    holds all gradients; each tensor is then clipped on its own."""
    learning_rate_schedule: Literal["constant", "cosine", "linear"] = "cosine"
    """How the learning rate falls after the warm-up."""
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Share of the steps in which the learning rate rises from 0."""
    max_grad_norm: float = Field(default=1.0, gt=0, allow_inf_nan=True)
    """Gradients are scaled down to this Euclidean norm."""
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Decay of an exponential moving average of what is learnt; the average is saved."""
    min_snr_gamma: float = Field(default=5.0, gt=0)
    """Bound of the min-SNR loss weight (arXiv:2303.09556), where min_snr is on."""
    min_snr: bool = True
    """Weight the loss by min-SNR."""
    noise_offset: float = Field(default=0.0, ge=0, le=1)
    """Deviation of a constant added to each channel's noise, for very dark or bright pictures."""
    caption_dropout: float = Field(default=0.05, ge=0, le=1)
    """Share of captions replaced by the empty one, which keeps guidance working."""
    prior: Literal["none", "images", "prediction"] | None = None
    """Prior preservation: class pictures drawn by the base, or the base's own prediction as the
    target for class captions. Default: the technique's own."""
    prior_weight: float = Field(default=1.0, ge=0, le=1e6)
    """Weight of the prior rows in the loss (lambda of arXiv:2208.12242, equation 2)."""
    prior_every: int | None = Field(default=None, ge=1, le=4096)
    """Pictures of a batch (or micro-batch) for one prior row: with 4, a batch of 4 has a single one
    that counts as much as four. Quicker, but noisier. Default: the technique's own."""
    prior_images: int = Field(default=40, ge=1, le=100_000)
    """Class pictures to draw for prior = images."""
    resolution: int | None = Field(default=None, ge=32, le=16_384)
    """Side of a square training picture in pixels. Default: the base's own."""
    crop: Literal["center", "random"] = "center"
    """Where pictures are cut to their bucket's aspect ratio."""
    flip: bool = False
    """Also train on mirrored pictures; wrong for asymmetric characters."""
    unmasked_weight: float = Field(default=0.1, ge=0, le=1)
    """Weight of the loss outside the mask, for pictures that have one."""
    gradient_checkpointing: Extent = "none"
    """Activations recomputed in the backward pass, which takes less memory and more time: none,
    selective (those of the largest maps) or full."""

    @field_validator("gradient_checkpointing", mode="before")
    @classmethod
    def _extent(cls, value: object) -> object:
        """Take true and false, as run files of before had it."""
        return {True: "full", False: "none"}.get(value, value) if value in (True, False) else value

    @field_validator("optimizer")
    @classmethod
    def _known(cls, optimizer: str) -> str:
        check_optimizer(optimizer)
        return optimizer

    @model_validator(mode="after")
    def _one_pass_updates(self) -> Self:
        passes = self.gradient_accumulation * len(self.micro_batches)
        if self.update == "in_backward" and passes > 1:
            raise UsageError(
                "schedule.update is 'in_backward', which needs the whole gradient in one backward "
                f"pass, but a step has {passes}; leave out gradient_accumulation and micro_batch, "
                "or use update = after_backward"
            )
        return self

    @property
    def micro_batches(self) -> list[slice]:
        """Return the rows of a batch that go through the network together."""
        size = min(self.micro_batch or self.batch_size, self.batch_size)
        starts = range(0, self.batch_size, size)
        return [slice(i, min(i + size, self.batch_size)) for i in starts]

    @property
    def most_rows(self) -> int:
        """Return how many rows go through the network together at most, class pictures included."""
        rows: int = max(part.stop - part.start for part in self.micro_batches)
        return rows * (1 if self.prior == "none" else 2)

    @property
    def pictures_per_step(self) -> int:
        """Return how many pictures one optimiser step sees."""
        return self.batch_size * self.gradient_accumulation

    @property
    def total_steps(self) -> int:
        """Return `steps` of a schedule that is resolved."""
        return _filled(self.steps)

    @property
    def peak_rate(self) -> float:
        """Return `learning_rate` of a schedule that is resolved."""
        return _filled(self.learning_rate)

    @property
    def decay(self) -> float:
        """Return `weight_decay` of a schedule that is resolved."""
        return _filled(self.weight_decay)

    def resolved(self, pictures: int, recommended: Recommended) -> Self:
        """Return the schedule with every default filled in."""
        presentations = min(
            max(pictures * recommended.steps_per_picture, recommended.min_steps),
            recommended.max_steps,
        )
        defaults = {
            "steps": math.ceil(presentations / self.pictures_per_step),
            "learning_rate": OWN_RATES.get(self.optimizer, recommended.learning_rate),
            "weight_decay": recommended.weight_decay,
            "prior": recommended.prior,
            "prior_every": recommended.prior_every,
        }
        missing = {key: value for key, value in defaults.items() if getattr(self, key) is None}
        return self.model_copy(update=missing)

    @property
    def gamma(self) -> float | None:
        """Return the min-SNR bound in force."""
        return self.min_snr_gamma if self.min_snr else None


def _filled(value: T | None) -> T:
    if value is None:
        raise ValueError("the schedule is not resolved: its defaults are not filled in")
    return value
