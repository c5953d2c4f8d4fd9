"""Drift: did training change what the base draws for others?"""

from __future__ import annotations

import numpy as np

from personae.errors import UsageError
from personae.evaluation.metric import Evidence, Metric, images_of


class Drift(Metric):
    """(1 - cosine) / 2 of a class picture and the untouched base's, same prompt and seed.

    0 is no change, 0.5 a picture that has nothing to do with the base's (cosine 0). The image-text
    encoder is used, because it sees scene and subject alike, as DINOv2 does in peft's benchmark.
    It is defined for every technique, full fine-tuning included, because both pictures are drawn
    beforehand.
    """

    name = "drift"
    title = "change to class prompts"
    unit = "(1 - cosine) / 2"
    better = "lower"
    source = "huggingface/peft 5d602fdb, method_comparison/image-gen/run.py"
    over = "class_generated"
    needs = ("base_class",)

    def __call__(self, evidence: Evidence) -> np.ndarray:
        """Return (class_generated,), in [0, 1].

        Raises:
            UsageError: the base did not draw one of the shots.
        """
        before = {sample.key: sample for sample in evidence.base_class}
        for sample in evidence.class_generated:
            if sample.key not in before:
                raise UsageError(
                    f"drift: the untouched base drew no '{sample.shot}' with seed {sample.seed}; "
                    "draw the same class prompts and seeds with both"
                )
        encoder, after = evidence.image_text, evidence.class_generated
        rows = encoder.embed_images(images_of(after))
        originals = encoder.embed_images(images_of([before[sample.key] for sample in after]))
        cosine = np.einsum("nd,nd->n", rows, originals).astype(np.float64)
        distances: np.ndarray = (1 - np.minimum(cosine, 1.0)) / 2
        return distances
