"""Noise paths: how a clean latent becomes noise, and what the denoiser is asked to predict.

Knows nothing of any network. Levels are `a` (of the clean latent) and `s` (of the noise).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

SCHEDULER_TIMES = 1000  # num_train_timesteps of every flow-matching scheduler of diffusers


class NoisePath(ABC):
    """A family's way from a clean latent x0 to noise: x_t = a(t) x0 + s(t) noise."""

    @abstractmethod
    def sample(self, count: int, generator: torch.Generator, shape: Sequence[int]) -> Tensor:
        """Draw `count` training times, shape (count,), in the path's own unit.

        `shape` is that of one picture's latents, (c, h, w): larger pictures may want more noise.
        """

    @abstractmethod
    def spread(self, count: int, shape: Sequence[int]) -> Tensor:
        """Return `count` fixed times from little to much noise, shape (count,), for validation."""

    def from_scheduler(self, t: Tensor) -> Tensor:
        """Return a time of a diffusers scheduler in the path's own unit."""
        return t

    @abstractmethod
    def levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return (a, s) at times `t`, both of shape (b, 1, 1, 1) and float32."""

    @abstractmethod
    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Return what the denoiser should predict, shape of `x0`."""

    @abstractmethod
    def weight(self, t: Tensor, gamma: float | None) -> Tensor:
        """Return the loss weight at `t`, shape (b,); `gamma` bounds the signal-to-noise ratio."""

    def mix(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Return the noisy latent x_t, shape of `x0`."""
        a, s = self.levels(t)
        return a.to(x0.device) * x0 + s.to(x0.device) * noise


@dataclass(frozen=True, slots=True)
class Diffusion(NoisePath):
    """The discrete diffusion of DDPM with eps or v prediction.

    Attributes:
        alphas_cumprod: products of alphas per step, shape (T,), descending in (0, 1).
        prediction_type: "epsilon" (Ho et al. 2020, arXiv:2006.11239) or "v_prediction"
            (Salimans and Ho 2022, arXiv:2202.00512, section 4).
    """

    alphas_cumprod: Tensor
    prediction_type: Literal["epsilon", "v_prediction"]

    def sample(self, count: int, generator: torch.Generator, shape: Sequence[int]) -> Tensor:
        """Draw steps uniformly from 0 .. T-1."""
        return torch.randint(len(self.alphas_cumprod), (count,), generator=generator)

    def spread(self, count: int, shape: Sequence[int]) -> Tensor:
        """Return the middles of `count` equal parts of 0 .. T-1."""
        return ((torch.arange(count) + 0.5) * len(self.alphas_cumprod) / count).long()

    def levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return sqrt(alpha_bar) and sqrt(1 - alpha_bar)."""
        alpha_bar = self.alphas_cumprod.float()[t].reshape(-1, 1, 1, 1)
        return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Return the noise, or v = a noise - s x0."""
        if self.prediction_type == "epsilon":
            return noise
        a, s = (level.to(x0.device) for level in self.levels(t))
        return a * noise - s * x0

    def weight(self, t: Tensor, gamma: float | None) -> Tensor:
        """Return the min-SNR weight.

        Source: Hang et al. 2023, arXiv:2303.09556, section 3.4: min(snr, gamma) / snr for eps and
        min(snr, gamma) / (snr + 1) for v.
        """
        if gamma is None:
            return torch.ones(len(t))
        a, s = (level.flatten() for level in self.levels(t))
        snr = (a / s).square().clamp(min=1e-8)  # a zero-terminal-SNR schedule ends at exactly 0
        divisor = snr if self.prediction_type == "epsilon" else snr + 1
        return snr.clamp(max=gamma) / divisor


@dataclass(frozen=True, slots=True)
class ShiftByTokens:
    """A shift that grows with the picture: e^mu, mu linear in the number of its tokens.

    Source: Esser et al. 2024, arXiv:2403.03206, section 5.3.2; numbers as in diffusers'
    FlowMatchEulerDiscreteScheduler.

    Attributes:
        tokens: a small and a large number of tokens; mu: their shifts, as logarithms.
        patch: side of a token, in latents.
    """

    tokens: tuple[int, int] = (256, 4096)
    mu: tuple[float, float] = (0.5, 1.15)
    patch: int = 2

    def mu_at(self, shape: Sequence[int]) -> float:
        """Return mu for latents of `shape` (c, h, w)."""
        count = (shape[-2] // self.patch) * (shape[-1] // self.patch)
        slope = (self.mu[1] - self.mu[0]) / (self.tokens[1] - self.tokens[0])
        return self.mu[0] + slope * (count - self.tokens[0])


@dataclass(frozen=True, slots=True)
class Flow(NoisePath):
    """Rectified flow: a straight line from data (t = 0) to noise (t = 1).

    Source: Esser et al. 2024, arXiv:2403.03206, sections 3.1 and 5.3.2.

    Attributes:
        shift: moves times towards noise; 1 leaves them as they are. One number, or one for each
            size of pictures.
    """

    shift: float | ShiftByTokens = 1.0

    def sample(self, count: int, generator: torch.Generator, shape: Sequence[int]) -> Tensor:
        """Draw times from the logit-normal density (mean 0, deviation 1), then shift them."""
        return self.shifted(torch.randn(count, generator=generator).sigmoid(), shape)

    def spread(self, count: int, shape: Sequence[int]) -> Tensor:
        """Return the shifted middles of `count` equal parts of (0, 1)."""
        return self.shifted((torch.arange(count) + 0.5) / count, shape)

    def from_scheduler(self, t: Tensor) -> Tensor:
        """Return t / 1000: schedulers count in thousandths."""
        return t / SCHEDULER_TIMES

    def shifted(self, t: Tensor, shape: Sequence[int]) -> Tensor:
        """Return times `t` moved towards noise, for latents of `shape` (c, h, w)."""
        shift = self.shift_at(shape)
        return shift * t / (1 + (shift - 1) * t)

    def shift_at(self, shape: Sequence[int]) -> float:
        """Return the shift for latents of `shape` (c, h, w)."""
        return self.shift if isinstance(self.shift, float) else math.exp(self.shift.mu_at(shape))

    def levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return 1 - t and t."""
        sigma = t.float().reshape(-1, 1, 1, 1)
        return 1 - sigma, sigma

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Return the velocity noise - x0."""
        return noise - x0

    def weight(self, t: Tensor, gamma: float | None) -> Tensor:
        """Return ones: the logit-normal draw already weights the times."""
        return torch.ones(len(t))
