"""Measuring drawn pictures of a character: every metric, its interval and its ceiling.

Drawn + Character + Encoders --evaluate--> Scores --to_dict--> result.json
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from personae.characters.character import Character
from personae.core import registry
from personae.errors import UsageError
from personae.evaluation.metric import Evidence, Metric, Sample, images_of
from personae.evaluation.scores import Score, Scores
from personae.evaluation.statistics import CONFIDENCE, mean_interval
from personae.vision.cached_encoder import CachedEncoder
from personae.vision.encoder import Encoder
from personae.vision.load import load_encoder

logger = logging.getLogger(__name__)

"""Version of the form in which scores are stored."""

IDENTITY: Final = "toon_identity"
IMAGE_TEXT: Final = "toon_clip"


@dataclass(frozen=True, slots=True)
class Encoders:
    """The networks that look at pictures; they remember what they have seen.

    Attributes:
        identity: tells characters apart.
        image_text: reads pictures and texts.
        second: tells characters apart too, and learnt from other pictures; None: there is none.
    """

    identity: CachedEncoder
    image_text: CachedEncoder
    second: CachedEncoder | None = None

    @classmethod
    def load(
        cls,
        identity: str = IDENTITY,
        image_text: str = IMAGE_TEXT,
        device: str = "auto",
        second: str | None = None,
    ) -> Self:
        """Load them, by the names `load_encoder` takes.

        Raises:
            UsageError: unknown name, or `image_text` reads no text.
            EncoderError: weights or a library are missing.
        """
        return cls.around(
            load_encoder(identity, device=device),
            load_encoder(image_text, kind="image_text", device=device),
            load_encoder(second, device=device) if second else None,
        )

    @classmethod
    def around(cls, identity: Encoder, image_text: Encoder, second: Encoder | None = None) -> Self:
        """Return loaded encoders, each with a memory."""
        known = CachedEncoder(second) if second else None
        return cls(CachedEncoder(identity), CachedEncoder(image_text), known)

    @property
    def names(self) -> dict[str, str]:
        """Return what was used, for results: scores of different encoders must not be mixed."""
        return {
            role: f"{encoder.name} ({encoder.weights})"
            for role, encoder in (
                *(("identity", self.identity), ("image_text", self.image_text)),
                ("second", self.second),
            )
            if encoder is not None
        }


@dataclass(frozen=True, slots=True)
class Drawn:
    """What one technique drew for one suite.

    Attributes:
        generated: pictures of the character.
        class_generated: pictures of its class.
        base_class: the same class prompts and seeds by the untouched base.
        suite_pictures: real pictures of the suite's prompts, a sequence for each character in them.
        base_generated: the suite's prompts with the class noun by the untouched base.
    """

    generated: Sequence[Sample]
    class_generated: Sequence[Sample] = ()
    base_class: Sequence[Sample] = ()
    suite_pictures: Sequence[Sequence[Sample]] = ()
    base_generated: Sequence[Sample] = ()


def evaluate(
    drawn: Drawn,
    character: Character,
    encoders: Encoders,
    *,
    metrics: Sequence[str] | None = None,
    confidence: float = CONFIDENCE,
) -> Scores:
    """Measure drawn pictures of a character.

    Args:
        drawn: pictures made with `Suite.requests` and `Suite.class_requests`.
        character: gives the real pictures: trained on, and held out.
        encoders: use one pair for a whole study, so that real pictures are encoded once.
        metrics: names of the metrics; None: all there are.
        confidence: of the intervals, in (0, 1).

    Returns:
        Scores of every metric asked for; one that cannot be measured has a note instead of values.

    Raises:
        UsageError: unknown metric, no pictures, or class pictures without their pair.
        CharacterError: a real picture can no longer be read.
    """
    real = [*character.references, *character.held_out]
    evidence = Evidence(
        generated=drawn.generated,
        training=[reference.image() for reference in character.references],
        held_out=[reference.image() for reference in character.held_out],
        identity=encoders.identity,
        image_text=encoders.image_text,
        class_generated=drawn.class_generated,
        base_class=drawn.base_class,
        captions=[character.caption(reference, character.class_noun) for reference in real],
        suite_pictures=drawn.suite_pictures,
        base_generated=drawn.base_generated,
        second=encoders.second,
    )
    return measure(evidence, encoders.names, metrics=metrics, confidence=confidence)


def measure(
    evidence: Evidence,
    encoders: dict[str, str],
    *,
    metrics: Sequence[str] | None = None,
    confidence: float = CONFIDENCE,
) -> Scores:
    """Measure pictures that need not come from a character folder; see `evaluate`."""
    if not evidence.generated:
        raise UsageError("there are no pictures to measure; draw the suite's shots first")
    _refuse_repeats(evidence)
    known = registry.discover(Metric)
    chosen = known if metrics is None else metrics
    measures = [registry.lookup(Metric, name)() for name in chosen]
    scores = {metric.name: score(metric, evidence, confidence) for metric in measures}
    rows = evidence.identity.embed_images(images_of(evidence.generated))
    return Scores(scores, encoders, len(rows), int((~rows.any(axis=1)).sum()))


def score(metric: Metric, evidence: Evidence, confidence: float = CONFIDENCE) -> Score:
    """Return one metric's values, mean, interval over shots, ceiling and findings."""
    note = metric.missing(evidence)
    if note is not None:
        logger.info("%s: %s", metric.name, note)
        return Score(metric.unit, metric.better, note=note)
    values = metric(evidence)
    keys = tuple(sample.key for sample in getattr(evidence, metric.over))
    if np.isnan(values).all():
        return Score(metric.unit, metric.better, note="it applies to none of the pictures")
    interval = mean_interval(values, [shot for shot, _ in keys], confidence=confidence)
    ceiling, floor = metric.ceiling(evidence), metric.floor(evidence)
    zero = floor or 0.0
    return Score(
        unit=metric.unit,
        better=metric.better,
        values=tuple(None if math.isnan(value) else float(value) for value in values),
        keys=keys,
        mean=interval.mean,
        low=interval.low,
        high=interval.high,
        ceiling=ceiling,
        share=(interval.mean - zero) / (ceiling - zero)
        if ceiling is not None and ceiling > zero
        else None,
        details=metric.details(evidence),
        floor=floor,
    )


def _refuse_repeats(evidence: Evidence) -> None:
    """Refuse two pictures of one shot and seed: they would count twice and pair with neither."""
    for samples in (evidence.generated, evidence.class_generated, evidence.base_class):
        keys = [sample.key for sample in samples]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise UsageError(
                f"shot '{twice[0]}' was drawn twice with seed {twice[1]}; keep one of the two"
            )
