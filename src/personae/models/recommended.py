"""How a technique is best trained: what a run starts from when the user says nothing."""

from __future__ import annotations

from pydantic import Field

from personae.core.config import Config


class Recommended(Config):
    """How a technique is best trained; the schedule of a run starts from it."""

    learning_rate: float = Field(gt=0)
    """Peak learning rate of AdamW."""
    weight_decay: float = Field(ge=0)
    """Decoupled weight decay."""
    steps_per_picture: float = Field(gt=0)
    """Steps at batch size 1 for each training picture."""
    min_steps: int = Field(gt=0)
    """Fewest steps at batch size 1, whatever the number of pictures."""
    max_steps: int = Field(gt=0)
    """Most steps at batch size 1, whatever the number of pictures."""
    prior: str = "none"
    """Prior preservation it is best trained with: none, images or prediction."""
    prior_every: int = Field(default=1, ge=1)
    """Pictures of a batch for one prior row."""
