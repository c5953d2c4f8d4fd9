"""The loss: one denoising objective for every technique, with or without prior preservation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from personae.core.seeds import generator_for
from personae.models.family import Family
from personae.models.text import Text
from personae.techniques.modes import untouched
from personae.techniques.technique import Technique
from personae.training.batches import Batch
from personae.training.schedule import Schedule
from personae.training.texts import TextSource


@dataclass(frozen=True, slots=True)
class Noised:
    """A batch with its noise drawn: all that a loss depends on besides the weights."""

    batch: Batch
    noise: Tensor
    t: Tensor

    def __getitem__(self, rows: slice) -> Noised:
        return Noised(self.batch[rows], self.noise[rows], self.t[rows])

    def joined(self, other: Noised) -> Noised:
        """Return the rows of both."""
        noise = torch.cat([self.noise, other.noise])
        return Noised(self.batch.joined(other.batch), noise, torch.cat([self.t, other.t]))


def draw_noise(base: Family, batch: Batch, seed: int, *stream: int | str, offset: float) -> Noised:
    """Draw noise and times of `batch` from (seed, stream) alone.

    `offset` is the deviation of a constant per channel (noise offset).
    """
    generator = generator_for(seed, "noise", *stream)
    noise = torch.randn(batch.latents.shape, generator=generator)
    if offset:
        noise = noise + offset * torch.randn(*noise.shape[:2], 1, 1, generator=generator)
    return Noised(batch, noise, base.path.sample(len(noise), generator, noise.shape[1:]))


def captions_with_dropout(
    captions: Sequence[str], share: float, seed: int, *stream: int
) -> list[str]:
    """Return the captions with about `share` of them emptied, from (seed, stream) alone."""
    chances = torch.rand(len(captions), generator=generator_for(seed, "captions", *stream))
    return ["" if chance < share else c for c, chance in zip(captions, chances, strict=True)]


def predict(base: Family, noised: Noised, text: Text) -> Tensor:
    """Return the denoiser's prediction in float32, (b, c, h, w)."""
    noisy = base.path.mix(noised.batch.latents, noised.noise, noised.t)
    conditions = base.conditions(noised.batch.frames)
    return base.denoise(noisy, noised.t, text, conditions).float()


def denoising_loss(
    base: Family, noised: Noised, text: Text, gamma: float | None, target: Tensor | None = None
) -> Tensor:
    """Return the loss of each row, (b,), against `target` (default: the path's own)."""
    return row_losses(base, noised, predict(base, noised, text), gamma, target)


def row_losses(
    base: Family,
    noised: Noised,
    prediction: Tensor,
    gamma: float | None,
    target: Tensor | None = None,
) -> Tensor:
    """Return the loss of each row of a prediction (b, c, h, w), (b,).

    The squared error against `target` (default: the path's own), weighted place by place by the
    mask and row by row by the picture's weight and min-SNR.
    """
    if target is None:
        target = base.path.target(noised.batch.latents, noised.noise, noised.t)
    error = (prediction - target.to(base.device)).square()
    if noised.batch.mask is not None:
        error = error * noised.batch.mask.to(error)
    weights = noised.batch.weights * base.path.weight(noised.t, gamma)
    return error.flatten(1).mean(1) * weights.to(error)


def training_loss(
    base: Family,
    techniques: Sequence[Technique],
    noised: Noised,
    texts: TextSource,
    schedule: Schedule,
    *,
    captions: Sequence[str],
    prior: Noised | None,
) -> Tensor:
    """Return the scalar a step descends.

    prior = images: rows of class pictures with class captions (arXiv:2208.12242, equation 2).
    prior = prediction: the same noisy latents with class captions, whose target is what the
    untouched base predicts, so that no class pictures are needed. Pictures and prior rows of one
    size go through the network in one call. With `prior_every` only each so manieth row has a
    prior row: their mean, and so the gradient expected, is the same.
    """
    if schedule.prior == "none" or schedule.prior_weight == 0:
        return denoising_loss(base, noised, texts(captions), schedule.gamma).mean()
    kept, gamma = (prior or noised)[:: schedule.prior_every], schedule.gamma
    class_captions, target = kept.batch.class_captions, None
    if schedule.prior == "prediction":
        with torch.no_grad(), untouched(techniques):
            target = predict(base, kept, texts(class_captions))
    if kept.noise.shape[1:] != noised.noise.shape[1:]:  # of another bucket
        loss = denoising_loss(base, noised, texts(captions), gamma).mean()
        class_loss = denoising_loss(base, kept, texts(class_captions), gamma, target).mean()
        return loss + schedule.prior_weight * class_loss
    if target is not None:
        own = base.path.target(noised.batch.latents, noised.noise, noised.t)
        target = torch.cat([own.to(target.device), target])
    text = texts([*captions, *class_captions])
    losses = denoising_loss(base, noised.joined(kept), text, gamma, target)
    count = len(noised.t)
    return losses[:count].mean() + schedule.prior_weight * losses[count:].mean()
