"""Diversity: does another seed give another picture?"""

from __future__ import annotations

import numpy as np

from personae.evaluation.metric import Evidence, Metric, images_of


class Diversity(Metric):
    """Mean LPIPS-style distance of a picture to the others of its shot, drawn with other seeds.

    The distance is 1 - cosine of `Encoder.embed_layout` of the image-text encoder: up to 5 hidden
    layers of its vision network, spread evenly from first to last, each place's channels scaled to
    length 1, mean over places and layers. It is half of LPIPS with all channel weights 1, divided
    by the number of layers; it is not LPIPS on AlexNet and does not compare to published DIV.
    """

    name = "diversity"
    title = "difference between seeds"
    unit = "1 - cosine"
    better = "higher"
    source = "DIV, Ruiz et al. 2022, arXiv:2208.12242; LPIPS, Zhang et al. 2018, arXiv:1801.03924"

    def __call__(self, evidence: Evidence) -> np.ndarray:
        """Return (generated,), in [0, 2]; nan where a shot has one picture only."""
        generated = evidence.generated
        values = np.full(len(generated), np.nan)
        for shot in dict.fromkeys(sample.shot for sample in generated):
            members = [i for i, sample in enumerate(generated) if sample.shot == shot]
            if len(members) < 2:
                continue
            images = images_of([generated[i] for i in members])
            layout = evidence.image_text.embed_layout(images).astype(np.float64)
            distance = 1 - layout @ layout.T
            np.fill_diagonal(distance, 0.0)
            values[members] = distance.sum(axis=1) / (len(members) - 1)
        return values
