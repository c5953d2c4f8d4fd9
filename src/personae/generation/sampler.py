"""The denoising loop, from noise to latents."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from personae.core.seeds import generator_for
from personae.errors import UsageError
from personae.generation.cast import Cast, Member
from personae.generation.settings import Sampling
from personae.models.family import Family
from personae.models.text import Frame, Text


@dataclass(frozen=True, slots=True)
class Shot:
    """One picture to draw: a prompt (characters in braces) and a seed of at most 64 bits.

    Raises:
        UsageError: the seed is beyond what generators take.
    """

    prompt: str
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse seeds that no generator takes."""
        if not -(2**63) <= self.seed < 2**64:
            raise UsageError(
                f"seed is {self.seed}; it must be between -2^63 and 2^64 - 1 ({2**64 - 1})"
            )


def shots_of_prompts(prompts: Sequence[str], seed: int = 0, number: int = 1) -> list[Shot]:
    """Return `number` pictures of each prompt, their seeds from `seed` on.

    Raises:
        UsageError: there is no prompt, or a seed is beyond what generators take.
    """
    if not prompts:
        raise UsageError('no prompt; say what to draw, as in "{mira} on a beach"')
    return [Shot(prompt, seed + i) for prompt in prompts for i in range(number)]


@torch.no_grad()
def sample(
    base: Family, batch: Sequence[Shot], sampling: Sampling, cast: Cast
) -> Generator[None, None, Tensor]:
    """Denoise a batch, yielding after each step; returns the latents (b, c, h, w)."""
    sampling = sampling_on(base, sampling)
    noise = starting_noise(base, batch, sampling)
    scheduler = base.scheduler(sampling.sampler, sampling.steps, noise.shape[1:])
    latents: Tensor = noise * scheduler.init_noise_sigma
    guided = base.is_guided(sampling.guidance_scale)
    acting = [cast.acting(shot.prompt, sampling.negative_prompt) for shot in batch]
    named = [against for _, against in acting] if guided else []
    named += [following for following, _ in acting]
    frames = [Frame.whole(*picture_size(base, sampling))] * len(named)
    conditions = base.conditions(frames, sampling.guidance_scale)
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
            times = base.path.from_scheduler(t).expand(len(noisy[rows]))
            parts.append(base.denoise(noisy[rows], times, text[rows], conditions[rows]).float())
        prediction = torch.cat(parts)
        if guided:
            without, following = prediction.chunk(2)
            prediction = base.guide(without, following, sampling.guidance_scale)
        added = streams_of_noise(scheduler, batch, i)
        latents = scheduler.step(prediction, t, latents, return_dict=False, **added)[0]
        yield
    _set_strengths(cast, [set(cast.members)], 0.0)
    return latents


def sampling_on(base: Family, sampling: Sampling) -> Sampling:
    """Return the same with the sampler named that `auto` means on `base`."""
    if sampling.sampler != "auto":
        return sampling
    return sampling.model_copy(update={"sampler": base.usual_sampler})


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


def streams_of_noise(
    scheduler: Any, batch: Sequence[Shot], step: int
) -> dict[str, list[torch.Generator]]:
    """Return what `scheduler.step` takes at `step` for the noise that it may add.

    A row's noise depends on its seed and the step alone, not on the rest of its batch, and is
    drawn on the host so that devices agree. Empty where the sampler takes none.
    """
    if "generator" not in signature(scheduler.step).parameters:
        return {}
    return {"generator": [generator_for(shot.seed, "sampler", step) for shot in batch]}


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
        following, against = cast.acting(shot.prompt, sampling.negative_prompt)
        _set_strengths(cast, [following], progress)
        plain.append(cast.encode(base, cast.spell(shot.prompt)))
        if base.is_guided(sampling.guidance_scale):
            _set_strengths(cast, [against], progress)
            negative.append(cast.encode(base, cast.spell(sampling.negative_prompt)))
    return Text.concatenate(negative + plain)


def _set_strengths(cast: Cast, named: Sequence[set[str]], progress: float) -> None:
    """Give each technique its strength: a number where all rows agree, else one per row."""
    for name, member in cast.members.items():
        rows = [_strength_now(member, name in names, progress) for names in named]
        alike = all(row == rows[0] for row in rows)
        for technique in member.techniques:
            technique.strength = rows[0] if alike else torch.tensor(rows)
