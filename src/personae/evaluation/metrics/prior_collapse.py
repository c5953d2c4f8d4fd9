"""Prior collapse: has everyone of the class become the character?"""

from __future__ import annotations

from typing import Any

import numpy as np

from personae.evaluation.metric import Evidence, Metric, images_of, likeness_to


class PriorCollapse(Metric):
    """Mean cosine of a class picture to all real pictures of the character: PRES.

    Members of a class are alike to begin with, so it never falls to 0; `details` gives the value of
    the untouched base as `base`, and what is above it is collapse.
    """

    name = "prior_collapse"
    title = "others look like the character"
    unit = "cosine"
    better = "lower"
    source = "PRES, Ruiz et al. 2022, arXiv:2208.12242, section 4.3"
    over = "class_generated"
    needs = ("training",)

    def __call__(self, evidence: Evidence) -> np.ndarray:
        """Return (class_generated,), in [-1, 1]."""
        images = images_of(evidence.class_generated)
        return likeness_to(evidence.identity, images, evidence.real)

    def details(self, evidence: Evidence) -> dict[str, Any]:
        """Return `base`: the same measure on the untouched base's pictures, if there are any."""
        if not evidence.base_class:
            return {}
        images = images_of(evidence.base_class)
        return {"base": float(likeness_to(evidence.identity, images, evidence.real).mean())}
