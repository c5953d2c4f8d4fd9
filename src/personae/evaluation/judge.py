"""Drawing a suite with a trained character and measuring what came out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Self, cast

from personae.characters.character import Character
from personae.core.cache import default_folder, keep
from personae.evaluation.evaluate import Drawn, Encoders, evaluate
from personae.evaluation.metric import Sample
from personae.evaluation.scores import Score, Scores
from personae.evaluation.settings import NONE, JudgingSettings, suite_for
from personae.evaluation.suite import FIRST_SEED, Request, Suite
from personae.generation.cast import Cast
from personae.generation.generate import draw, drawn_before
from personae.generation.picture import Picture
from personae.generation.sampler import Shot
from personae.generation.settings import Sampling
from personae.models.family import Family


@dataclass(frozen=True, slots=True)
class Judge:
    """The same judgement for every technique: a base, a character, a suite and encoders.

    Attributes:
        base: loaded; what is judged is on it, or nothing is.
        character: gives names and real pictures.
        settings: with every default filled in.
        suite: what is drawn.
        encoders: who looks.
    """

    base: Family
    character: Character
    settings: JudgingSettings
    suite: Suite
    encoders: Encoders
    _unkept: dict[str, list[Picture]] = field(default_factory=dict, repr=False)
    """What the base alone drew while the cache cannot be written."""

    @classmethod
    def of(cls, settings: JudgingSettings, base: Family, character: Character) -> Self:
        """Load suite and encoders.

        Raises:
            UsageError: an unknown suite or encoder.
            EncoderError: an encoder's weights are not there.
        """
        settings = settings.resolved(base.source)  # every default is filled in
        second = None if settings.second == NONE else settings.second
        encoders = Encoders.load(
            cast(str, settings.identity),
            cast(str, settings.image_text),
            str(base.device),
            second=second,
        )
        suite = suite_for(base.source, settings.suite)
        return cls(base, character, settings, suite, encoders)

    def small(self, shots: int) -> Judge:
        """Return a judge of a few scenes and one seed each, for scoring checkpoints.

        Its seeds are others than those of the full suite, so that no checkpoint is chosen by the
        pictures it is measured on.
        """
        settings = self.settings.model_copy(update={"seeds": 1, "class_seeds": 1})
        part = self.suite.part(scenes=shots)
        part = part.model_copy(update={"class_shots": part.class_shots[:2]})
        return replace(self, settings=settings, suite=part)

    def requests(self, who: str, first_seed: int = FIRST_SEED) -> list[Request]:
        """Return the pictures of the character to draw; `who` is its name in braces, or a word."""
        seeds = range(first_seed, first_seed + self.settings.seeds)
        return self.suite.requests(who, self.character.class_noun, seeds)

    def class_requests(self, first_seed: int = FIRST_SEED) -> list[Request]:
        """Return the pictures of the class to draw."""
        seeds = range(first_seed, first_seed + self.settings.class_seeds)
        return self.suite.class_requests(self.character.class_noun, seeds)

    def draw(self, requests: Sequence[Request], cast: Cast | None = None) -> list[Picture]:
        """Draw what is asked for with whoever is in the cast, or with the base alone."""
        return draw(self.base, shots_of(requests), self.settings.sampling, cast)

    def measure(
        self,
        requests: Sequence[Request],
        pictures: Sequence[Picture],
        class_pictures: Sequence[Picture],
        untouched: Sequence[Picture],
        first_seed: int = FIRST_SEED,
    ) -> Scores:
        """Measure pictures of the character and of its class, in the order they were asked for."""
        asked = self.class_requests(first_seed)
        others = self.requests(self.character.class_noun, first_seed)
        kept = self._kept(others)
        drawn = Drawn(
            samples(requests, pictures),
            samples(asked, class_pictures),
            samples(asked, untouched),
            self.suite.pictures(),
            samples(others, kept) if kept else [],
        )
        return evaluate(drawn, self.character, self.encoders)

    def measure_real(self) -> Scores:
        """Measure the real pictures: their agreement with their own captions, and every ceiling.

        A metric that compares with real pictures has its leave-one-out ceiling as its mean.
        """
        real = [*self.character.references, *self.character.held_out]
        noun = self.character.class_noun
        captions = [self.character.caption(reference, noun) for reference in real]
        drawn = Drawn(
            [
                Sample(reference.image(), caption, f"real_{number}", 0)
                for number, (reference, caption) in enumerate(zip(real, captions, strict=True))
            ],
            suite_pictures=self.suite.pictures(),
        )
        scores = evaluate(drawn, self.character, self.encoders)
        metrics = {name: as_ceiling(name, score) for name, score in scores.metrics.items()}
        return replace(scores, metrics=metrics)

    def untouched(self, first_seed: int = FIRST_SEED) -> list[Picture]:
        """Return the class pictures of the base alone; they are drawn once and kept on disk.

        So are the suite's pictures of someone of the class, which `measure` holds likeness against.
        Nothing may be attached to the base.
        """
        self._drawn_once(self.requests(self.character.class_noun, first_seed))
        return self._drawn_once(self.class_requests(first_seed))

    def _drawn_once(self, requests: Sequence[Request]) -> list[Picture]:
        kept, paths = self._kept(requests), self._paths(requests)
        if kept:
            return kept
        pictures = self.draw(requests)
        written = [
            keep(partial(picture.save, path)) for picture, path in zip(pictures, paths, strict=True)
        ]
        if not all(written):
            self._unkept[self._untouched_key(requests)] = pictures
        return pictures

    def _kept(self, requests: Sequence[Request]) -> list[Picture]:
        """Return what the base alone drew before for these, or [] if one is not there."""
        unkept = self._unkept.get(self._untouched_key(requests))
        if unkept:
            return unkept
        pairs = zip(shots_of(requests), self._paths(requests), strict=True)
        found = [drawn_before(path, shot, self.base) for shot, path in pairs]
        return [each for each in found if each] if all(found) else []

    def _paths(self, requests: Sequence[Request]) -> list[Path]:
        folder = default_folder() / "untouched" / self._untouched_key(requests)
        return [folder / f"{i:03d}.png" for i in range(len(requests))]

    def _untouched_key(self, requests: Sequence[Request]) -> str:
        sampling: Sampling = self.settings.sampling
        asked = [(request.prompt, request.seed) for request in requests]
        about = (
            self.base.fingerprint,
            self.base.quantised or str(self.base.dtype),
            self.base.device.type,
        )
        return hashlib.sha256(repr((about, sampling.model_dump(), asked)).encode()).hexdigest()


def shots_of(requests: Sequence[Request]) -> list[Shot]:
    """Return what the generator is asked for."""
    return [Shot(request.prompt, request.seed) for request in requests]


def samples(requests: Sequence[Request], pictures: Sequence[Picture]) -> list[Sample]:
    """Pair what was asked for with what was drawn."""
    return [
        request.answered(picture.image) for request, picture in zip(requests, pictures, strict=True)
    ]


def save_pictures(
    folder: Path, requests: Sequence[Request], pictures: Sequence[Picture]
) -> list[dict[str, object]]:
    """Write pictures as `<shot>-<seed>.png`; return what and where they are, for a result."""
    return [
        {
            "shot": request.shot,
            "seed": request.seed,
            "prompt": request.text,
            "medium": request.medium,
            "file": picture.save(folder / f"{request.shot}-{request.seed}.png").name,
        }
        for request, picture in zip(requests, pictures, strict=True)
    ]


def as_ceiling(name: str, score: Score) -> Score:
    """Return the score of real pictures: the ceiling, or what their captions agree with."""
    if name == "agreement":
        return score
    if score.ceiling is None:
        note = score.note or "has no meaning for the pictures that were trained on"
        return Score(score.unit, score.better, note=note)
    return Score(score.unit, score.better, mean=score.ceiling, ceiling=score.ceiling, share=1.0)
