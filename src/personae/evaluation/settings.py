"""How pictures are judged: which prompts, how many seeds, which encoders look at them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from pydantic import Field

from personae.core.config import Config
from personae.generation.settings import Sampling

if TYPE_CHECKING:
    from personae.evaluation.suite import Suite

EMBEDDED = {"suite": "toon", "identity": "toon_identity", "image_text": "toon_clip"}
OTHERS = {"suite": "general", "identity": "dinov2", "image_text": "clip"}
SECOND = ("efficientnet_lite0", "dinov2", "dino")
NONE = "none"


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
    second: str | None = None
    """Encoder that looks at likeness beside `identity` and learnt from other pictures. Default:
    efficientnet_lite0 if its package is installed, else dinov2 or dino if fetched before, else
    none."""
    seeds: int = Field(default=2, ge=1, le=10_000)
    """Pictures of each shot about the character; diversity needs two."""
    class_seeds: int = Field(default=1, ge=1, le=10_000)
    """Pictures of each shot about its class, for drift and prior collapse."""
    checkpoint_shots: int = Field(default=4, ge=2, le=10_000)
    """Shots drawn to score each checkpoint where the best one is kept."""
    sampling: Sampling = Sampling(steps=20)
    """How the pictures are drawn."""

    def resolved(self, base: str) -> Self:
        """Return the settings with every default filled in for the base of that name."""
        usual = _usual(base)
        usual = usual | {"second": second_beside(self.identity or usual["identity"])}
        missing = {key: value for key, value in usual.items() if getattr(self, key) is None}
        return self.model_copy(update=missing)


def suite_for(base: str, named: str | None = None) -> Suite:
    """Load the suite named, else the one that fits the base of that name.

    Raises:
        UsageError: there is no such suite.
    """
    from personae.evaluation.suite import load_suite  # knows pictures, which settings do without

    return load_suite(named or _usual(base)["suite"])


def _usual(base: str) -> dict[str, str]:
    """Return the default suite and encoders for the base of that name."""
    from personae.models.weights import sources  # brings torch

    return EMBEDDED if base in sources.embedded_bases() else OTHERS


def second_beside(identity: str) -> str:
    """Return the first of `SECOND` that is installed and is not `identity`, or "none"."""
    from personae.core import registry
    from personae.vision.encoder import Encoder

    known = registry.discover(Encoder)
    for name in SECOND:
        if not identity.startswith(name) and known[name].installed():
            return name
    return NONE
