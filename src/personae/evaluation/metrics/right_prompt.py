"""Right prompt: can one tell from the picture which prompt was asked for?"""

from __future__ import annotations

from typing import Any

import numpy as np

from personae.evaluation.metric import Evidence, Metric
from personae.evaluation.prompt_contrast import found


class RightPrompt(Metric):
    """1 where, of all prompts of the suite, the picture is nearest to its own; else 0.

    The mean is the chance that the right prompt is found: R-precision at 1. Guessing finds one in
    as many as there are prompts (`chance` in `details`). The ceiling is what is found from the real
    pictures that the suite brings; encoders do not read every expression.
    """

    name = "right_prompt"
    title = "right prompt found"
    unit = "share of pictures"
    better = "higher"
    source = "R-precision, Xu et al. 2018, arXiv:1711.10485; by CLIP, Park et al. 2021 (NeurIPS)"

    def __call__(self, evidence: Evidence) -> np.ndarray:
        """Return (generated,), 0 or 1."""
        return found(evidence.image_text, evidence.generated)

    def ceiling(self, evidence: Evidence) -> float | None:
        """Return the share found from the suite's real pictures, or None if it brings none."""
        means = [found(evidence.image_text, group).mean() for group in evidence.suite_pictures]
        return float(np.mean(means)) if means else None

    def details(self, evidence: Evidence) -> dict[str, Any]:
        """Return `prompts`, how many there are, and `chance`, what guessing finds."""
        prompts = len({sample.prompt for sample in evidence.generated})
        return {"prompts": prompts, "chance": 1 / prompts}

    def missing(self, evidence: Evidence) -> str | None:
        """Return why there can be no value: a single prompt, for one."""
        if len({sample.prompt for sample in evidence.generated}) == 1:
            return "the suite has a single prompt, which is found whatever is drawn"
        return super().missing(evidence)
