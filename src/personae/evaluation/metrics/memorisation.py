"""Memorisation: is a drawn picture a copy of one it was trained on?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from PIL import Image, ImageOps

from personae.evaluation.metric import Evidence, Metric, images_of
from personae.vision.encoder import Encoder

NEARER: Final = 0.5
"""Distance of a copy, as part of the smallest distance between two real pictures.

Measured by benchmarks/copy_threshold.py on 100 drawn characters of 6 training pictures each, on
`toon_clip`: 5 per cent of new pictures of the same character are called copies, and all training
pictures passed through an autoencoder, 98 per cent if they are also shifted and scaled by 3 per
cent. At 1 it would be 29, 100 and 100; at 0.6 7, 100 and 99; at 0.4 2.5, 100 and 98. On layers of
EfficientNet-Lite0 it is 2.5, 92 and 72.
"""


class Memorisation(Metric):
    """Cosine of a picture to the nearest training picture, mirrored ones included.

    The rows compared are `Encoder.embed_layout` of the image-text encoder, which also say where
    things are: the same character elsewhere in the picture is likeness, at the same place before
    the same background it is a copy.

    A copy is much nearer to a training picture than any real picture is to another one (leave one
    out): its distance, 1 - cosine, is below `NEARER` times the smallest of theirs. The threshold is
    thus the set's own; where pictures of the set nearly repeat each other few copies are called.
    """

    name = "memorisation"
    title = "nearest training picture"
    unit = "cosine"
    better = "lower"
    source = "nearest-neighbour test of Somepalli et al. 2022, arXiv:2212.03860, own calibration"
    needs = ("training",)

    def __call__(self, evidence: Evidence) -> np.ndarray:
        """Return (generated,), in [-1, 1]."""
        nearest: np.ndarray = self._nearness(evidence).max(axis=1)
        return nearest

    def details(self, evidence: Evidence) -> dict[str, Any]:
        """Return the nearest training pictures and the copies.

        Returns:
            threshold: cosine above which a picture is a copy; None with fewer than two real
                pictures. nearest: index of the training picture nearest to each generated one.
            copies: whether each is a copy. copied: for each training picture, how many generated
                ones are copies of it.
        """
        nearness, limit = self._nearness(evidence), copy_threshold(evidence)
        nearest = nearness.argmax(axis=1)
        copies = nearness.max(axis=1) > (np.inf if limit is None else limit)
        copied = np.bincount(nearest[copies], minlength=len(evidence.training))
        return {
            "threshold": limit,
            "nearest": nearest.tolist(),
            "copies": copies.tolist(),
            "copied": copied.tolist(),
        }

    @staticmethod
    def _nearness(evidence: Evidence) -> np.ndarray:
        images = images_of(evidence.generated)
        return mirror_blind(evidence.image_text, images, evidence.training)


def copy_threshold(evidence: Evidence) -> float | None:
    """Return the cosine to a training picture above which a picture is a copy of it.

    None with fewer than two real pictures.
    """
    if len(evidence.real) < 2:
        return None
    nearness = mirror_blind(evidence.image_text, evidence.real, evidence.training)
    itself = np.arange(len(evidence.real))[:, None] == np.arange(len(evidence.training))
    nearest = float(np.where(itself, -np.inf, nearness).max())
    return 1 - NEARER * (1 - nearest)


def mirror_blind(
    encoder: Encoder, images: Sequence[Image.Image], training: Sequence[Image.Image]
) -> np.ndarray:
    """Return the cosine (n, m) of each image to each training picture or its mirror image."""
    rows = encoder.embed_layout(images)
    straight = rows @ encoder.embed_layout(training).T
    mirrored = rows @ encoder.embed_layout([ImageOps.mirror(image) for image in training]).T
    nearer: np.ndarray = np.maximum(straight, mirrored).astype(np.float64)
    return nearer
