"""The contract of every metric and what it may look at.

A metric gives one value per picture; means, intervals and rankings are made elsewhere. It knows
neither the technique that drew the pictures nor which encoder reads them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

import numpy as np
from PIL import Image

from personae.core.registry import PlugIn
from personae.vision.encoder import Encoder

Better = Literal["higher", "lower"]
Part = Literal["generated", "class_generated", "base_class", "training", "held_out"]

MISSING: Final[dict[Part, str]] = {
    "generated": "no picture of the character was drawn",
    "class_generated": "no class prompt was drawn",
    "base_class": "the untouched base drew no class prompt",
    "training": "the character has no training pictures",
    "held_out": "no picture is held out; bring at least 5 pictures, or set hold_out",
}
"""Why a metric has no value, by the part of the evidence that is empty."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """A drawn picture and what was asked for.

    Attributes:
        image: the picture.
        prompt: what it should show, as an encoder reads it: the character's phrase replaced by
            its class noun, because no encoder knows the name.
        shot: id of the prompt in its suite.
        seed: seed it was drawn with.
        medium: the medium asked for ("pencil drawing"), or None for the character's own.
    """

    image: Image.Image
    prompt: str
    shot: str
    seed: int
    medium: str | None = None

    @property
    def key(self) -> tuple[str, int]:
        """Return what pairs this picture with the same shot of another technique."""
        return (self.shot, self.seed)


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """All that is known about one trained character when it is measured.

    Attributes:
        generated: pictures of the character.
        training, held_out: real pictures it was trained on, and those it never saw.
        identity: encoder that tells characters apart.
        image_text: encoder that reads pictures and texts.
        second: another encoder that tells characters apart, which learnt from other pictures than
            the base; None: there is none.
        class_generated: pictures of the class ("a girl on a street"), by the same technique.
        base_class: the same prompts and seeds drawn by the untouched base.
        captions: what each picture of `real` shows, with the class noun in place of the
            character; () if unknown.
        suite_pictures: real pictures of the suite's prompts, a sequence for each character in them.
        base_generated: the suite's prompts with the class noun by the untouched base: others of the
            class, in the same scenes and media.
    """

    generated: Sequence[Sample]
    training: Sequence[Image.Image]
    held_out: Sequence[Image.Image]
    identity: Encoder
    image_text: Encoder
    class_generated: Sequence[Sample] = ()
    base_class: Sequence[Sample] = ()
    captions: Sequence[str] = ()
    suite_pictures: Sequence[Sequence[Sample]] = ()
    base_generated: Sequence[Sample] = ()
    second: Encoder | None = None

    @property
    def others(self) -> list[Image.Image]:
        """Return pictures of other characters: the suite drawn of someone of the class.

        They are by the untouched base, so that they have the scenes, the manner and the faults that
        a technique's pictures have: ImageNet features see those before the character. Without them,
        the class's own prompts stand for them, else the suite's real pictures.
        """
        real = [sample for group in self.suite_pictures for sample in group]
        return images_of(self.base_generated or self.base_class or real)

    @property
    def real(self) -> list[Image.Image]:
        """Return the real pictures, trained on first, then held out."""
        return [*self.training, *self.held_out]


class Metric(PlugIn, ABC):
    """One measure. It is called with the evidence and gives one value per picture.

    Attributes:
        name: what it is called in commands, results and reports.
        title: a few words for people.
        unit: unit or kind of the value.
        better: whether "higher" or "lower" is better.
        source: paper or code that defines it.
        over: the samples its values belong to, in their order.
        needs: parts of the evidence without which it has no value.
    """

    package: ClassVar[str] = "personae.evaluation.metrics"
    group: ClassVar[str] = "personae.metrics"
    name: ClassVar[str]
    title: ClassVar[str]
    unit: ClassVar[str]
    better: ClassVar[Better]
    source: ClassVar[str]
    over: ClassVar[Literal["generated", "class_generated"]] = "generated"
    needs: ClassVar[tuple[Part, ...]] = ()

    @abstractmethod
    def __call__(self, evidence: Evidence) -> np.ndarray:
        """Return float64 (n,): one value per sample of `over`, nan where it does not apply."""

    def ceiling(self, evidence: Evidence) -> float | None:
        """Return what real pictures of the character reach, or None if that has no meaning."""
        return None

    def floor(self, evidence: Evidence) -> float | None:
        """Return what pictures reach that have nothing of what is measured; None: that is 0."""
        return None

    def details(self, evidence: Evidence) -> dict[str, Any]:
        """Return further findings: numbers, strings and lists of them, in the order of `over`."""
        return {}

    def missing(self, evidence: Evidence) -> str | None:
        """Return why there can be no value, or None."""
        empty = [part for part in (self.over, *self.needs) if not getattr(evidence, part)]
        return MISSING[empty[0]] if empty else None


def images_of(samples: Sequence[Sample]) -> list[Image.Image]:
    """Return the pictures of `samples`."""
    return [sample.image for sample in samples]


def likeness_to(
    encoder: Encoder, images: Sequence[Image.Image], references: Sequence[Image.Image]
) -> np.ndarray:
    """Return the mean similarity of each image to all references, (n,)."""
    rows, columns = encoder.embed_images(images), encoder.embed_images(references)
    means: np.ndarray = encoder.similarity(rows, columns).astype(np.float64).mean(axis=1)
    return means


def others_likeness(encoder: Encoder, evidence: Evidence) -> float | None:
    """Return the mean likeness that pictures of other characters reach; None without any."""
    if not evidence.others or not evidence.held_out:
        return None
    return float(likeness_to(encoder, evidence.others, evidence.held_out).mean())


def real_likeness(encoder: Encoder, evidence: Evidence) -> float | None:
    """Return the likeness real pictures reach: each compared to the held-out ones but itself.

    Every real picture takes the place of a generated one, so the ceiling is measured against the
    same pictures as the likeness. None with fewer than two pictures, or none held out.
    """
    real, held_out = evidence.real, evidence.held_out
    if len(real) < 2 or not held_out:
        return None
    rows = encoder.embed_images(real)
    similarity = encoder.similarity(rows, rows[len(evidence.training) :]).astype(np.float64)
    itself = np.arange(len(real))[:, None] == np.arange(len(held_out)) + len(evidence.training)
    others = np.where(itself, np.nan, similarity)
    compared = others[~np.isnan(others).all(axis=1)]
    return float(np.nanmean(compared, axis=1).mean())
