"""Agreement: does the picture show what the prompt asks for?"""

from __future__ import annotations

import numpy as np

from personae.evaluation.metric import Evidence, Metric, images_of


class Agreement(Metric):
    """Cosine of a picture and its prompt, by the image-text encoder: CLIP-T.

    The prompt is read with the class noun in place of the character's phrase.
    """

    name = "agreement"
    title = "agreement with the prompt"
    unit = "cosine"
    better = "higher"
    source = "CLIP-T, Ruiz et al. 2022, arXiv:2208.12242, section 4.1"

    def __call__(self, evidence: Evidence) -> np.ndarray:
        """Return (generated,), in [-1, 1]."""
        encoder, generated = evidence.image_text, evidence.generated
        pictures = encoder.embed_images(images_of(generated))
        texts = encoder.embed_texts([sample.prompt for sample in generated])
        cosines: np.ndarray = np.einsum("nd,nd->n", pictures, texts).astype(np.float64)
        return cosines
