"""Drawing pictures in batches, the same way for every family, every technique and every cast.

Members of a cast act on the rows of a batch that mention them. Strengths may change at every
step, so characters and techniques can be switched in the middle of a picture.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from personae.errors import BaseError, UsageError
from personae.generation.cast import Cast
from personae.generation.decoding import decode, to_images
from personae.generation.memory_check import check_room
from personae.generation.picture import Picture
from personae.generation.prompts import check_length
from personae.generation.recipe import recipe
from personae.generation.sampler import Shot, picture_size, sample, sampling_on
from personae.generation.settings import Sampling
from personae.models.acceleration.choice import accelerated
from personae.models.family import Family


@dataclass(frozen=True, slots=True)
class Drawing:
    """Progress: `done` of `total` denoising steps over all pictures."""

    done: int
    total: int


def generate(
    base: Family,
    shots: Sequence[Shot],
    sampling: Sampling = Sampling(),
    cast: Cast | None = None,
    *,
    batch_size: int = 4,
    strict: bool = True,
) -> Iterator[Drawing | Picture]:
    """Draw `shots`, yielding progress and, batch by batch, pictures in the order of the shots.

    A `cast` must be on `base` already (`with cast.on(base)`). A prompt is drawn with the members
    it names in braces, or with all members if it names none; a member that the negative prompt
    names acts there. Without `strict`, a member that a prompt names beyond the last token that is
    read is lost with a warning.

    Raises:
        UsageError: a name is not in the cast or behind the last token, the cast is not on the base,
            the base has not the size or sampler, or the pictures do not fit the memory.
        BaseError: what was drawn is not finite.
    """
    cast = cast or Cast()
    for name, member in cast.members.items():
        if not member.techniques:
            raise UsageError(f"'{name}' is not on the base; draw inside `with cast.on(base)`")
    sampling = sampling_on(base, sampling)
    batches = list(_batches(shots, cast, sampling, batch_size))
    prompts = [shot.prompt for shot in shots] + [sampling.negative_prompt]
    check_length(base, prompts, cast.phrase_of, strict=strict)
    total = sampling.steps * len(batches)
    finished: dict[int, Picture] = {}
    upcoming = 0
    for number, rows in enumerate(batches):
        batch = [shots[i] for i in rows]
        before = Drawing(number * sampling.steps, total)
        pictures = yield from _drawn(base, batch, sampling, cast, before)
        finished.update(zip(rows, pictures, strict=True))
        while upcoming in finished:
            yield finished.pop(upcoming)
            upcoming += 1


def _drawn(
    base: Family, batch: Sequence[Shot], sampling: Sampling, cast: Cast, before: Drawing
) -> Generator[Drawing, None, list[Picture]]:
    """Draw one batch, yielding progress that goes on from `before`; return its pictures."""
    size = picture_size(base, sampling)
    rows = len(batch) * (2 if base.is_guided(sampling.guidance_scale) else 1)
    at_once = min(rows, sampling.rows_at_once or rows)
    check_room(base, at_once, size, sampling.tile)
    with accelerated(base, at_once, size):
        ways = base.forwards.names(training=False)
        latents = yield from _counted(sample(base, batch, sampling, cast), before)
        decoded = decode(base, latents, sampling.tile)
    if not (torch.isfinite(latents).all() and torch.isfinite(decoded).all()):
        raise BaseError(
            f"base '{base.source}' drew values that are not finite, which would be a black "
            "picture: a file of it or of the cast is damaged, or fp16 is too narrow for it; fetch "
            "it again, or try --precision fp32"
        )
    return [
        Picture(image, recipe(base, batch, place, sampling, cast, ways=ways))
        for place, image in enumerate(to_images(decoded))
    ]


def _counted(
    steps: Generator[None, None, Tensor], before: Drawing
) -> Generator[Drawing, None, Tensor]:
    """Yield the progress of a denoising loop and return its latents."""
    done = before.done
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            latents: Tensor = stop.value
            return latents
        done += 1
        yield Drawing(done, before.total)


def draw(
    base: Family,
    shots: Sequence[Shot],
    sampling: Sampling = Sampling(),
    cast: Cast | None = None,
    *,
    batch_size: int = 4,
    strict: bool = True,
) -> list[Picture]:
    """Return the pictures of `generate` without the progress."""
    events = generate(base, shots, sampling, cast, batch_size=batch_size, strict=strict)
    return [event for event in events if isinstance(event, Picture)]


def drawn_before(path: Path, shot: Shot, base: Family) -> Picture | None:
    """Return the picture of a file that `base` alone drew for `shot`, or None.

    A cache may be damaged or mixed up, so the picture's own recipe decides, not its place.
    """
    try:
        picture = Picture.open(path)
    except UsageError:
        return None
    drawn = picture.recipe
    same = (drawn.prompt, drawn.seed, drawn.fingerprint) == (
        shot.prompt,
        shot.seed,
        base.fingerprint,
    )
    return picture if same and not drawn.cast else None


def _batches(
    shots: Sequence[Shot], cast: Cast, sampling: Sampling, batch_size: int
) -> Iterator[list[int]]:
    """Yield row numbers that can share a batch: those with the same weight-changing members."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for i, shot in enumerate(shots):
        following, against = cast.acting(shot.prompt, sampling.negative_prompt)
        whole = tuple(
            name
            for name, member in cast.members.items()
            if name in against and not all(technique.per_row for technique in member.techniques)
        )
        for name in whole:
            if name not in following:
                raise UsageError(
                    f"'{name}' changes the weights of the whole base, so it cannot act in the "
                    "negative prompt alone; name it in the prompt too, or import it as a LoRA"
                )
        groups.setdefault(whole, []).append(i)
    for rows in groups.values():
        yield from (rows[i : i + batch_size] for i in range(0, len(rows), batch_size))
