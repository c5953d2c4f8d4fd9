"""How much nearer pictures are to their own prompts than to the other prompts of a suite.

A cosine alone does not say whether a prompt acts: pictures of one base are about as near to any
prompt it knows, and real pictures are no nearer. What tells is the difference between prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from personae.evaluation.metric import Evidence, Sample, images_of
from personae.evaluation.statistics import mean_interval
from personae.vision.encoder import Encoder

FEWEST_CAPTIONS: Final = 4
"""Different captions from which on a character's own pictures can stand for real ones."""


def cosines(encoder: Encoder, samples: Sequence[Sample]) -> tuple[np.ndarray, np.ndarray]:
    """Return the cosine of each sample to each different prompt, (n, k), and its own column, (n,).

    The prompts are those of the samples themselves, each once.
    """
    prompts = list(dict.fromkeys(sample.prompt for sample in samples))
    pictures, texts = encoder.embed_images(images_of(samples)), encoder.embed_texts(prompts)
    own = np.array([prompts.index(sample.prompt) for sample in samples], dtype=int)
    return (pictures @ texts.T).astype(np.float64), own


def margins(encoder: Encoder, samples: Sequence[Sample]) -> np.ndarray:
    """Return the cosine of each sample to its prompt less its mean cosine to the others, (n,).

    In [-2, 2]. Pictures that are the same whatever is asked for have a mean of exactly 0, if each
    prompt is drawn equally often.
    """
    table, own = cosines(encoder, samples)
    mine = table[np.arange(len(own)), own]
    ahead: np.ndarray = mine - (table.sum(axis=1) - mine) / (table.shape[1] - 1)
    return ahead


def found(encoder: Encoder, samples: Sequence[Sample]) -> np.ndarray:
    """Return 1 where a sample's nearest prompt is its own, else 0, (n,)."""
    table, own = cosines(encoder, samples)
    right: np.ndarray = (table.argmax(axis=1) == own).astype(np.float64)
    return right


def captioned(evidence: Evidence) -> list[Sample]:
    """Return the real pictures as answers to their captions; [] if those say too little.

    It takes `FEWEST_CAPTIONS` different captions, and pictures that are nearer to their own beyond
    the noise: else the encoder cannot read them, and nothing can be scaled by them.
    """
    samples = [
        Sample(image, caption, f"real_{number}", 0)
        for number, (image, caption) in enumerate(
            zip(evidence.real, evidence.captions, strict=bool(evidence.captions))
        )
    ]
    if len({sample.prompt for sample in samples}) < FEWEST_CAPTIONS:
        return []
    return samples if mean_interval(margins(evidence.image_text, samples)).low > 0 else []
