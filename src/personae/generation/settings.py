"""How pictures are sampled."""

from __future__ import annotations

from pydantic import Field

from personae.core.config import Config

LARGEST_SIDE = 16_384
"""Pixels; of a picture or a tile. What a machine can draw is forecast besides."""
MOST_ROWS = 4096
"""Pictures in a batch."""


class Sampling(Config, allow_inf_nan=False):
    """How pictures are drawn."""

    sampler: str = "auto"
    """Sampler: auto (the base's usual one), ddim, euler, euler_a, dpm++2m, dpm++2m_sde or unipc;
    euler, dpm++2m, dpm++2m_sde and unipc with _karras, too. euler_a and sde add noise on the way.
    A base refuses what does not fit it and says what does."""
    steps: int = Field(default=25, ge=1, le=1000)
    """Steps from noise to picture."""
    guidance_scale: float = Field(default=5.0, ge=1, le=1000)
    """Classifier-free guidance (arXiv:2207.12598); 1 = off. Typical: 3 to 8."""
    width: int | None = Field(default=None, gt=0, le=LARGEST_SIDE)
    """Width in pixels; default: the base's own."""
    height: int | None = Field(default=None, gt=0, le=LARGEST_SIDE)
    """Height in pixels; default: the base's own."""
    negative_prompt: str = ""
    """What to keep out of the pictures."""
    tile: int | None = Field(default=None, gt=0, le=LARGEST_SIDE)
    """Decode larger pictures in overlapping tiles of this many pixels a side, for little memory;
    such a picture differs a little. Default: whole. Typical: 512."""
    rows_at_once: int | None = Field(default=None, ge=1, le=2 * MOST_ROWS)
    """Most rows in a call of the denoiser, for little memory; guidance makes two of a picture, and
    the last bits of a picture depend on it. Default: all of a batch."""
