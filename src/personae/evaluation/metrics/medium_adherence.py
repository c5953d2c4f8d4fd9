"""Medium adherence: does the character survive pixel art, ink, watercolour?"""

from __future__ import annotations

from typing import Any

import numpy as np

from personae.evaluation.metric import Evidence, Metric, Sample, images_of, likeness_to


class MediumAdherence(Metric):
    """Likeness of the pictures asked for in a medium, 0 where the medium is not the one asked for.

    The image-text encoder says which of the suite's media a picture shows: the one whose prompts
    are on average nearest to it. A technique that ignores the medium and draws its training
    pictures gets no credit for their likeness. Guessing recognises 1 in as many as there are media.
    """

    name = "medium_adherence"
    title = "likeness in another medium"
    unit = "cosine"
    better = "higher"
    source = "zero-shot recognition, Radford et al. 2021, arXiv:2103.00020, section 3.1"
    needs = ("held_out",)

    def __call__(self, evidence: Evidence) -> np.ndarray:
        """Return (generated,): in [-1, 1], nan where no medium was asked for."""
        values = np.full(len(evidence.generated), np.nan)
        asked = _asked(evidence)
        if asked:
            samples = [evidence.generated[i] for i in asked]
            likeness = likeness_to(evidence.identity, images_of(samples), evidence.held_out)
            values[asked] = np.where(_recognised(evidence, samples), likeness, 0.0)
        return values

    def ceiling(self, evidence: Evidence) -> float | None:
        """Return None: the real pictures show the character in its own medium only."""
        return None

    def details(self, evidence: Evidence) -> dict[str, Any]:
        """Return the share of pictures in each medium that show it, and over all: `recognised`."""
        samples = [evidence.generated[i] for i in _asked(evidence)]
        if not samples:
            return {}
        shown = _recognised(evidence, samples)
        media = {
            medium: float(
                np.mean([s for s, x in zip(shown, samples, strict=True) if x.medium == medium])
            )
            for medium in dict.fromkeys(sample.medium for sample in samples)
        }
        return {"recognised": float(shown.mean()), "media": media}

    def missing(self, evidence: Evidence) -> str | None:
        """Return why there can be no value: fewer than two media to tell apart, for one."""
        media = {sample.medium for sample in evidence.generated} - {None}
        if len(media) < 2:
            return "the suite asks for fewer than two media, which cannot be told apart"
        return super().missing(evidence)


def _asked(evidence: Evidence) -> list[int]:
    return [i for i, sample in enumerate(evidence.generated) if sample.medium is not None]


def _recognised(evidence: Evidence, samples: list[Sample]) -> np.ndarray:
    """Return whether each sample is nearest to the prompts of its own medium, (n,) bool."""
    encoder = evidence.image_text
    pictures = encoder.embed_images(images_of(samples))
    prompts = list(dict.fromkeys((sample.medium, sample.prompt) for sample in samples))
    media = list(dict.fromkeys(medium for medium, _ in prompts))
    closeness = pictures @ encoder.embed_texts([prompt for _, prompt in prompts]).T
    per_medium = [
        closeness[:, [medium == other for other, _ in prompts]].mean(axis=1) for medium in media
    ]
    first = np.argmax(per_medium, axis=0)
    return np.array([media[k] == s.medium for k, s in zip(first, samples, strict=True)])
