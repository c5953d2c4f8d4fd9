"""CCIP: identity of drawn (anime) characters, through the `dghs-imgutils` library."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Self

import numpy as np
import torch
from PIL import Image

from personae.errors import EncoderError
from personae.vision.encoder import Encoder


class Ccip(Encoder):
    """Features compared by CCIP's own learnt difference; similarity is 1 - difference.

    Two pictures show the same character where the difference is below the model's threshold:
    0.178 for the default one, so a similarity above 0.822.
    """

    name = "ccip"
    kind = "identity"
    source = "https://huggingface.co/deepghs/ccip"
    default = "ccip-caformer-24-randaug-pruned"

    def __init__(self, library: ModuleType, weights: str) -> None:
        self.library, self.weights = library, weights

    @classmethod
    def load(cls, source: str | None, device: torch.device) -> Self:
        """Load a CCIP model by its name; the library decides where it runs."""
        try:
            from imgutils import metrics
        except ImportError:
            raise EncoderError(
                "encoder ccip: the imgutils library is not installed; pip install dghs-imgutils"
            ) from None
        return cls(metrics, source or cls.default)

    def embed_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Return CCIP features (n, 768), not of length 1: only `similarity` gives them meaning."""
        try:
            return np.stack(
                [
                    self.library.ccip_extract_feature(image.convert("RGB"), model=self.weights)
                    for image in images
                ]
            ).astype(np.float32)
        except (OSError, ValueError) as error:
            raise EncoderError(
                f"encoder ccip: the weights '{self.weights}' could not be loaded or fetched "
                f"({error}); connect once so that they are kept"
            ) from None

    def similarity(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return 1 - CCIP difference, (n, m), in [0, 1]."""
        both = list(np.concatenate([rows, columns]))
        differences = self.library.ccip_batch_differences(both, model=self.weights)
        return 1 - np.asarray(differences, dtype=np.float32)[: len(rows), len(rows) :]
