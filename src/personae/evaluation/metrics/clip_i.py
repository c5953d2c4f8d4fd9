"""CLIP-I: does the whole picture resemble the real ones?"""

from __future__ import annotations

import numpy as np

from personae.evaluation.metric import Evidence, Metric, images_of, likeness_to, real_likeness


class ClipI(Metric):
    """Mean cosine of a picture to every held-out picture, by the image-text encoder.

    Less of an identity measure than `likeness`: a girl in a red coat resembles any other.
    """

    name = "clip_i"
    title = "resemblance to held-out pictures"
    unit = "cosine"
    better = "higher"
    source = "CLIP-I, Ruiz et al. 2022, arXiv:2208.12242, section 4.1"
    needs = ("held_out",)

    def __call__(self, evidence: Evidence) -> np.ndarray:
        """Return (generated,), in [-1, 1]."""
        return likeness_to(evidence.image_text, images_of(evidence.generated), evidence.held_out)

    def ceiling(self, evidence: Evidence) -> float | None:
        """Return the leave-one-out CLIP-I of the real pictures."""
        return real_likeness(evidence.image_text, evidence)
