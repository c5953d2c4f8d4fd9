"""The denoising loop, from noise to latents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from personae.core.registry import nearest
from personae.errors import UsageError
from personae.generation.cast import Cast, Member
from personae.generation.settings import Sampling
from personae.models.family import Family, Text


@dataclass(frozen=True, slots=True)
class Shot:
    """One picture to draw: a prompt (characters in braces) and a seed."""

    prompt: str
    seed: int = 0


@torch.no_grad()
def sample(base: Family, batch: Sequence[Shot], sampling: Sampling, cast: Cast) -> Iterator[None]:
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
