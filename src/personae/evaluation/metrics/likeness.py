"""Likeness: does the drawn character look like the real one?"""

from __future__ import annotations

import numpy as np

from personae.evaluation.metric import (
    Evidence,
    Metric,
    images_of,
    likeness_to,
    others_likeness,
    real_likeness,
)


class Likeness(Metric):
    """Mean cosine of a picture to every held-out picture, by the identity encoder.

    Its mean over pictures is the mean over all generated x held-out pairs: the DINO score, if the
    encoder is `dino`. Held-out pictures were never trained on, so copying does not raise it.
    On its scale 0 is what other characters reach and 1 what the character's own pictures do.
    """

    name = "likeness"
    title = "likeness to held-out pictures"
    unit = "cosine"
    better = "higher"
    source = "DINO score, Ruiz et al. 2022, arXiv:2208.12242, section 4.1"
    needs = ("held_out",)

    def __call__(self, evidence: Evidence) -> np.ndarray:
        """Return (generated,), in [-1, 1]."""
        return likeness_to(evidence.identity, images_of(evidence.generated), evidence.held_out)

    def ceiling(self, evidence: Evidence) -> float | None:
        """Return the leave-one-out likeness of the real pictures."""
        return real_likeness(evidence.identity, evidence)

    def floor(self, evidence: Evidence) -> float | None:
        """Return the likeness of other characters: of its class, by the untouched base."""
        return others_likeness(evidence.identity, evidence)
