"""A fixed set of noise and timesteps, so that losses of two moments compare."""

from __future__ import annotations

from dataclasses import replace

import torch

from personae.models.family import Family
from personae.training.batches import Batch
from personae.training.loss import Noised, denoising_loss, predict, row_losses
from personae.training.texts import TextSource

TIMES = 4


class FrozenProbe:
    """A batch under fixed noise at fixed times, from little noise to much."""

    def __init__(self, base: Family, batch: Batch, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        times = base.path.spread(TIMES, batch.latents.shape[1:])
        rows = torch.arange(len(times)) % len(batch.latents)
        self.base = base
        chosen = replace(
            batch,
            latents=batch.latents[rows],
            mask=None if batch.mask is None else batch.mask[rows],
            weights=torch.ones(len(rows)),
            captions=[batch.captions[i] for i in rows],
            class_captions=[batch.class_captions[i] for i in rows],
            frames=[batch.frames[i] for i in rows],
        )
        noise = torch.randn(chosen.latents.shape, generator=generator)
        self.noised = Noised(chosen, noise, times)

    @torch.no_grad()
    def loss(self, texts: TextSource) -> float:
        """Return the mean unweighted loss now."""
        text = texts(self.noised.batch.captions)
        return denoising_loss(self.base, self.noised, text, None).mean().item()

    @torch.no_grad()
    def look(self, texts: TextSource) -> tuple[float, torch.Tensor]:
        """Return the mean unweighted loss and the prediction now."""
        output = predict(self.base, self.noised, texts(self.noised.batch.captions))
        return row_losses(self.base, self.noised, output, None).mean().item(), output
