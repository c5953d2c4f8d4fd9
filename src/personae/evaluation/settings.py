"""How pictures are judged: which prompts, how many seeds, which encoders look at them."""

from __future__ import annotations

from typing import Self

from pydantic import Field

from personae.core.config import Config
from personae.generation.settings import Sampling
from personae.models.weights import sources

EMBEDDED = {"suite": "toon", "identity": "toon_identity", "image_text": "toon_clip"}
OTHERS = {"suite": "general", "identity": "dinov2", "image_text": "clip"}


class JudgingSettings(Config):
    """What is drawn to judge a trained character, and who looks at it."""

    suite: str | None = None
    """Prompt suite: toon, general, or a TOML file. Default: toon for an embedded base, else
    general."""
    identity: str | None = None
    """Encoder that tells characters apart. Default: toon_identity for an embedded base, else
    dinov2."""
    image_text: str | None = None
    """Encoder that reads pictures and texts. Default: toon_clip for an embedded base, else clip."""
    seeds: int = Field(2, ge=1)
    """Pictures of each shot about the character; diversity needs two."""
    class_seeds: int = Field(1, ge=1)
    """Pictures of each shot about its class, for drift and prior collapse."""
    checkpoint_shots: int = Field(4, ge=2)
    """Shots drawn to score each checkpoint where the best one is kept."""
    sampling: Sampling = Sampling(steps=20)
    """How the pictures are drawn."""

    def resolved(self, base: str) -> Self:
        """Return the settings with every default filled in for the base of that name."""
        usual = EMBEDDED if base in sources.embedded_bases() else OTHERS
        missing = {key: value for key, value in usual.items() if getattr(self, key) is None}
        return self.model_copy(update=missing)
