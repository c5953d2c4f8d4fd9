"""Prompt following: does the picture change with the prompt?"""

from __future__ import annotations

from typing import Any

import numpy as np

from personae.evaluation.metric import Evidence, Metric
from personae.evaluation.prompt_contrast import captioned, margins

ONE_PROMPT = "the suite has a single prompt, so no other can be compared with it"


class PromptFollowing(Metric):
    """Cosine of a picture to its prompt less its mean cosine to the suite's other prompts.

    0 is what a picture has that was drawn for any of them: a technique that ignores prompts. The
    ceiling is what real pictures of those prompts reach, which the suite brings; else the
    character's own pictures with their captions; else there is none. `details` says which.
    """

    name = "prompt_following"
    title = "nearer to its prompt than to others"
    unit = "difference of cosines"
    better = "higher"
    source = "CLIP-T of arXiv:2208.12242, section 4.1, less its mean over the suite's other prompts"

    def __call__(self, evidence: Evidence) -> np.ndarray:
        """Return (generated,), in [-2, 2]."""
        return margins(evidence.image_text, evidence.generated)

    def ceiling(self, evidence: Evidence) -> float | None:
        """Return the mean of real pictures, or None where there are none that tell."""
        groups = evidence.suite_pictures or [captioned(evidence)]
        means = [margins(evidence.image_text, group).mean() for group in groups if group]
        return float(np.mean(means)) if means else None

    def details(self, evidence: Evidence) -> dict[str, Any]:
        """Return `scale`: which real pictures are 1 on the scale, or why there is no scale."""
        if evidence.suite_pictures:
            count = sum(map(len, evidence.suite_pictures))
            return {"scale": f"{count} real pictures of the suite's prompts"}
        own = captioned(evidence)
        if own:
            return {"scale": f"{len(own)} pictures of the character with their captions"}
        return {
            "scale": "none: the suite brings no real pictures, and the character's captions are "
            "fewer than four different ones or say nothing that the encoder sees"
        }

    def missing(self, evidence: Evidence) -> str | None:
        """Return why there can be no value: a single prompt, for one."""
        if len({sample.prompt for sample in evidence.generated}) == 1:
            return ONE_PROMPT
        return super().missing(evidence)
