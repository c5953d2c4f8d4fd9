"""Frozen looks at a run: the same noise and times each time, so that two moments compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from personae.core.seeds import generator_for
from personae.evaluation.suite import spelled
from personae.models.family import Family
from personae.training.batches import Batch
from personae.training.loss import Noised, denoising_loss, predict, row_losses
from personae.training.texts import TextSource

TIMES = 4
LATE = 2  # times of much noise, where a prompt decides what is drawn


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


class PromptProbe:
    """What the prompt alone changes about a prediction.

    Rows of pure noise, the same for every prompt, are denoised under captions that differ in the
    scene, and the mean over the captions is taken away: what is left is the prompt's doing.
    """

    def __init__(
        self, base: Family, scenes: Sequence[str], size: tuple[int, int], rows: int
    ) -> None:
        """Draw the noise.

        Args:
            base: loaded.
            scenes: two or more prompts with {character} where someone is named.
            size: (width, height) of a picture in pixels.
            rows: how many go through the denoiser at once; those of a training step need no more
                memory and no other kernels than it has.
        """
        self.base, self.scenes, self.rows = base, scenes, rows
        shape = base.latent_shape(*size)
        times = base.path.spread(2 * LATE, shape)[LATE:]
        noise = torch.randn(LATE, *shape, generator=generator_for(0, "prompts"))
        noisy = base.path.mix(torch.zeros_like(noise), noise, times)
        self._noisy = noisy.repeat_interleave(len(scenes), dim=0)
        self._times = times.repeat_interleave(len(scenes))

    def captions(self, who: str) -> list[str]:
        """Return the prompts about `who`."""
        return [spelled(scene, who) for scene in self.scenes]

    @torch.no_grad()
    def look(self, texts: TextSource, who: str) -> Tensor:
        """Return what each scene changes now, (times, scenes, values of a prediction)."""
        captions = self.captions(who) * LATE
        parts = []
        for start in range(0, len(captions), self.rows):
            rows = [min(start + i, len(captions) - 1) for i in range(self.rows)]
            text = texts([captions[row] for row in rows])
            output = self.base.denoise(self._noisy[rows], self._times[rows], text).float()
            parts.append(output[: len(captions) - start].cpu())
        changes: Tensor = torch.cat(parts).flatten(1).unflatten(0, (LATE, len(self.scenes)))
        return changes - changes.mean(1, keepdim=True)


def found(changes: Tensor, of_base: Tensor) -> float:
    """Return the share of scenes that change a prediction as they do on the base alone.

    A scene is found where its change is nearest, by cosine, to the base's for the same scene; by
    chance that is one of the scenes. Both are (times, scenes, values).
    """
    mine, base = (torch.nn.functional.normalize(each, dim=2) for each in (changes, of_base))
    nearest = (mine @ base.mT).argmax(2)
    return (nearest == torch.arange(mine.shape[1])).float().mean().item()
