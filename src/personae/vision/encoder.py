"""The contract of every encoder.

Nothing here knows what the vectors are used for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from PIL import Image

from personae.core.registry import PlugIn
from personae.errors import UnsupportedError

Kind = Literal["identity", "image_text"]


class Encoder(PlugIn, ABC):
    """Turns pictures into rows of vectors.

    Rows have length 1, except that a picture in which the encoder finds nothing to encode (no
    face) has a row of zeros, which is like no other.

    Attributes:
        name: what it is called in commands and results.
        kind: "identity" tells characters apart; "image_text" reads texts too.
        source: paper or place it comes from.
        weights: what was loaded: a hub id or a folder's name.
    """

    package: ClassVar[str] = "personae.vision.encoders"
    group: ClassVar[str] = "personae.encoders"
    name: ClassVar[str]
    kind: ClassVar[Kind]
    source: ClassVar[str]
    weights: str

    @classmethod
    def recognises(cls, source: str) -> bool:
        """Say whether a hub id or folder given without the encoder's name is meant for it."""
        return False

    @classmethod
    def installed(cls) -> bool:
        """Say whether its own weights are on this machine, so that it can serve unasked."""
        return False

    @classmethod
    @abstractmethod
    def load(cls, source: str | None, device: torch.device) -> Self:
        """Load the weights at `source` (hub id or folder; None: the encoder's own default).

        Raises:
            EncoderError: weights or library are missing; the message says how to get them.
        """

    @abstractmethod
    def embed_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Return one row per picture, float32 (n, d)."""

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return one row per text, float32 (n, d), comparable with `embed_images`.

        Raises:
            UnsupportedError: the encoder reads no text.
        """
        raise UnsupportedError(
            f"encoder '{self.name}' reads no text; use one of kind image_text, such as toon_clip"
        )

    def embed_layout(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Return rows (n, D) that also say where in the picture things are.

        An encoder that shows no inner layers returns `embed_images`.
        """
        return self.embed_images(images)

    def similarity(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return how alike each row and column is, (n, m); the cosine unless it says otherwise."""
        cosines: np.ndarray = rows @ columns.T
        return cosines
