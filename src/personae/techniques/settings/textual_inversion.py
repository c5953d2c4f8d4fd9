"""The settings of Textual Inversion."""

from __future__ import annotations

from pydantic import Field

from personae.techniques.technique_config import TechniqueConfig


class TextualInversionConfig(TechniqueConfig):
    """Settings of Textual Inversion."""

    title = "Textual Inversion"

    num_vectors: int = Field(default=8, ge=1, le=75)
    """Vectors behind the placeholder. Typical: 1 to 16."""
    initializer_words: str | None = None
    """Words whose vectors are the start, repeated in turn when there are fewer than vectors.
    Default: the character's class noun."""
    placeholder: str | None = None
    """The word that stands for the vectors in prompts. Default: <name of the character>."""
    norm_pull: float = Field(default=0.05, ge=0, le=1)
    """Share of the way each step pulls a vector's norm to that of a usual word; 0 = off."""
