"""Drawing: one sampling loop for every family, every technique and every cast.

Members of a cast act on the rows of a batch that mention them. Strengths may change at every
step, so characters and techniques can be switched in the middle of a picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from personae.core.devices import HOST
from personae.core.registry import nearest
from personae.errors import UsageError
from personae.generation.cast import Cast, Member
from personae.generation.decoding import decode_tiled
from personae.generation.picture import MemberRecord, Picture, Recipe, Row, Sampling
from personae.models.acceleration.choice import accelerated, setting
from personae.models.family import Family, Text
from personae.version import __version__


@dataclass(frozen=True, slots=True)
class Shot:
    """One picture to draw: a prompt (characters in braces) and a seed."""

    prompt: str
    seed: int = 0


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
) -> Iterator[Drawing | Picture]:
    """Draw `shots`, yielding progress and, batch by batch, pictures in the order of the shots.

    A `cast` must be on `base` already (`with cast.on(base)`). A prompt is drawn with the members
    it names in braces, or with all members if it names none.

    Raises:
        UsageError: a name is not in the cast, the cast is not on the base, or the base has not the
            size or sampler.
    """
    cast = cast or Cast()
    for name, member in cast.members.items():
        if not member.techniques:
            raise UsageError(f"'{name}' is not on the base; draw inside `with cast.on(base)`")
    batches = list(_batches(shots, cast, batch_size))
    done, total = 0, sampling.steps * len(batches)
    finished: dict[int, Picture] = {}
    upcoming = 0
    size = picture_size(base, sampling)
    for rows in batches:
        batch = [shots[i] for i in rows]
        doubled = len(rows) * (2 if sampling.guidance_scale > 1 else 1)
        with accelerated(base, min(doubled, sampling.rows_at_once or doubled), size):
            ways = base.forwards.names(training=False)
            painter = _sample(base, batch, sampling, cast)
            try:
                while True:
                    next(painter)
                    done += 1
                    yield Drawing(done, total)
            except StopIteration as stop:
                latents = stop.value
            images = to_images(decode(base, latents, sampling.tile))
        for place, (i, image) in enumerate(zip(rows, images, strict=True)):
            finished[i] = Picture(image, recipe(base, batch, place, sampling, cast, ways=ways))
        while upcoming in finished:
            yield finished.pop(upcoming)
            upcoming += 1


def draw(
    base: Family,
    shots: Sequence[Shot],
    sampling: Sampling = Sampling(),
    cast: Cast | None = None,
    *,
    batch_size: int = 4,
) -> list[Picture]:
    """Return the pictures of `generate` without the progress."""
    events = generate(base, shots, sampling, cast, batch_size=batch_size)
    return [event for event in events if isinstance(event, Picture)]


def redraw(base: Family, wanted: Recipe, cast: Cast) -> Picture:
    """Draw the picture of a recipe again; the same machine gives the same bytes.

    Raises:
        UsageError: base, its precision, or the cast and its strengths are not those of the recipe.
    """
    if base.fingerprint != wanted.fingerprint:
        raise UsageError(
            f"the picture was drawn on base '{wanted.base}' ({wanted.fingerprint}); the loaded "
            f"base is '{base.source}' ({base.fingerprint}); load that one"
        )
    if base.precision != wanted.precision:
        raise UsageError(
            f"the picture was drawn in {wanted.precision}; the loaded base is in "
            f"{base.precision}; load it with the other --precision"
        )
    for name in cast.members:
        if name not in wanted.cast:
            raise UsageError(f"the picture was drawn without '{name}'; take it out of the cast")
    for name, record in wanted.cast.items():
        member = cast.members.get(name)
        if member is None or member.artifact.card.content_hash != record.content_hash:
            raise UsageError(
                f"the picture was drawn with '{name}' from {record.file} "
                f"({record.content_hash[:12]}); give that file with --cast {name}=FILE"
            )
        if str(member.strength) != record.strength:
            raise UsageError(
                f"the picture was drawn with '{name}' at strength {record.strength}; here it is "
                f"{member.strength}; give it the same"
            )
    shots = [Shot(row.prompt, row.seed) for row in wanted.batch]
    allowed = base.acceleration
    base.acceleration = setting(",".join(wanted.acceleration) or "none")
    try:
        return draw(base, shots, wanted.sampling, cast, batch_size=len(shots))[wanted.row]
    finally:
        base.acceleration = allowed


def recipe(
    base: Family,
    batch: Sequence[Shot],
    place: int,
    sampling: Sampling,
    cast: Cast,
    *,
    ways: Sequence[str] = (),
) -> Recipe:
    """Return the recipe of row `place` of a batch that was drawn with accelerations `ways`."""
    return Recipe(
        version=__version__,
        base=base.source,
        fingerprint=base.fingerprint,
        precision=base.precision,
        cast={
            name: MemberRecord(
                file=Path(member.path).name if member.path else name,
                content_hash=member.artifact.card.content_hash,
                strength=str(member.strength),
            )
            for name, member in cast.members.items()
        },
        sampling=sampling,
        batch=[Row(prompt=shot.prompt, seed=shot.seed) for shot in batch],
        row=place,
        acceleration=list(ways),
    )


def _batches(shots: Sequence[Shot], cast: Cast, batch_size: int) -> Iterator[list[int]]:
    """Yield row numbers that can share a batch: those with the same weight-changing members."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for i, shot in enumerate(shots):
        whole = tuple(
            name
            for name in cast.mentioned(shot.prompt)
            if not all(technique.per_row for technique in cast.members[name].techniques)
        )
        groups.setdefault(whole, []).append(i)
    for rows in groups.values():
        yield from (rows[i : i + batch_size] for i in range(0, len(rows), batch_size))


@torch.no_grad()
def _sample(base: Family, batch: Sequence[Shot], sampling: Sampling, cast: Cast) -> Iterator[None]:
    """Denoise a batch, yielding after each step; returns the latents (b, c, h, w)."""
    if sampling.sampler not in base.samplers:
        raise UsageError(
            f"sampler is '{sampling.sampler}'; {base.name} has {', '.join(base.samplers)}."
            f"{nearest(sampling.sampler, base.samplers)}"
        )
    scheduler = base.samplers[sampling.sampler](base.scheduler_config)
    scheduler.set_timesteps(sampling.steps, device=base.device)
    latents = starting_noise(base, batch, sampling) * scheduler.init_noise_sigma
    guided = sampling.guidance_scale > 1
    named = [set(cast.mentioned(shot.prompt)) for shot in batch] * (2 if guided else 1)
    text, text_state = None, None
    for i, t in enumerate(scheduler.timesteps):
        progress = i / sampling.steps
        state = _text_state(cast, progress)
        if text is None or state != text_state:
            text, text_state = _encode(base, batch, sampling, cast, progress), state
        noisy = scheduler.scale_model_input(latents, t)
        if guided:
            noisy = torch.cat([noisy, noisy])
        parts = []
        size = sampling.rows_at_once or len(noisy)
        for rows in (slice(i, i + size) for i in range(0, len(noisy), size)):
            _set_strengths(cast, named[rows], progress)
            parts.append(base.denoise(noisy[rows], t.expand(len(noisy[rows])), text[rows]).float())
        prediction = torch.cat(parts)
        if guided:
            without, following = prediction.chunk(2)
            prediction = without + sampling.guidance_scale * (following - without)
        latents = scheduler.step(prediction, t, latents, return_dict=False)[0]
        yield
    _set_strengths(cast, [set(cast.members)], 0.0)
    return latents


def picture_size(base: Family, sampling: Sampling) -> tuple[int, int]:
    """Return width and height in pixels."""
    return sampling.width or base.resolution, sampling.height or base.resolution


def starting_noise(base: Family, batch: Sequence[Shot], sampling: Sampling) -> Tensor:
    """Return each row's own noise (b, c, h, w), drawn on the host so that devices agree."""
    shape = base.latent_shape(*picture_size(base, sampling))
    rows = [
        torch.randn(shape, generator=torch.Generator().manual_seed(shot.seed)) for shot in batch
    ]
    return torch.stack(rows).to(base.device)


@torch.no_grad()
def decode(base: Family, latents: Tensor, tile: int | None = None) -> Tensor:
    """Return pixels (b, 3, H, W) in [-1, 1]; one picture at a time, so memory stays low.

    Args:
        base: whose autoencoder is used.
        latents: (b, c, h, w), scaled.
        tile: side in pixels of overlapping tiles to decode larger pictures in; None = whole.

    Raises:
        UsageError: the side is no multiple the base can draw.
    """
    side = max(latents.shape[2:]) if tile is None else base.latent_shape(tile, tile)[1]
    return torch.cat([decode_tiled(base.decode_image, row[None], side) for row in latents])


def to_images(pixels: Tensor) -> list[Image.Image]:
    """Return PIL images of pixels (b, 3, H, W) in [-1, 1]."""
    scaled = ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return [Image.fromarray(row) for row in scaled.permute(0, 2, 3, 1).to(HOST).numpy()]


def _strength_now(member: Member, active: bool, progress: float) -> float:
    return member.strength.at(progress) if active else 0.0


def _text_state(cast: Cast, progress: float) -> tuple[float, ...]:
    """Return the strengths the text encoding depends on."""
    return tuple(
        member.strength.at(progress)
        for member in cast.members.values()
        if any(technique.trains_text for technique in member.techniques)
    )


def _encode(
    base: Family, batch: Sequence[Shot], sampling: Sampling, cast: Cast, progress: float
) -> Text:
    """Return the text of [negative rows, rows] (or rows alone without guidance)."""
    plain, negative = [], []
    for shot in batch:
        named = cast.mentioned(shot.prompt)
        for name, member in cast.members.items():
            for technique in member.techniques:
                technique.strength = _strength_now(member, name in named, progress)
        plain.append(cast.encode(base, cast.spell(shot.prompt)))
        if sampling.guidance_scale > 1:
            negative.append(cast.encode(base, sampling.negative_prompt))
    return Text.concatenate(negative + plain)


def _set_strengths(cast: Cast, named: Sequence[set[str]], progress: float) -> None:
    """Give each technique its strength: a number where all rows agree, else one per row."""
    for name, member in cast.members.items():
        rows = [_strength_now(member, name in names, progress) for names in named]
        alike = all(row == rows[0] for row in rows)
        for technique in member.techniques:
            technique.strength = rows[0] if alike else torch.tensor(rows)
