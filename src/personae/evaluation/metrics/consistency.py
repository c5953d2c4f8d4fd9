"""Consistency: is it the same character in every scene?"""

from __future__ import annotations

import numpy as np

from personae.evaluation.metric import Evidence, Metric, images_of


class Consistency(Metric):
    """Mean cosine of a picture to the generated pictures of all other shots, identity encoder.

    Pictures of one shot are left out, since the same prompt looks alike whoever is in it. Nothing
    is compared to real pictures: a character drawn wrong, but always the same, is consistent.
    """

    name = "consistency"
    title = "same character across scenes"
    unit = "cosine"
    better = "higher"
    source = "identity consistency, Avrahami et al. 2023, arXiv:2311.10093"

    def __call__(self, evidence: Evidence) -> np.ndarray:
        """Return (generated,), in [-1, 1]; nan where there is no other shot."""
        encoder, generated = evidence.identity, evidence.generated
        rows = encoder.embed_images(images_of(generated))
        shots = np.array([sample.shot for sample in generated])
        other = shots[:, None] != shots
        similarity = encoder.similarity(rows, rows).astype(np.float64)
        count = other.sum(axis=1)
        total = np.where(other, similarity, 0.0).sum(axis=1)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    def ceiling(self, evidence: Evidence) -> float | None:
        """Return the mean cosine over all pairs of real pictures, or None with fewer than two."""
        if len(evidence.real) < 2:
            return None
        rows = evidence.identity.embed_images(evidence.real)
        similarity = evidence.identity.similarity(rows, rows).astype(np.float64)
        return float(similarity[~np.eye(len(rows), dtype=bool)].mean())
