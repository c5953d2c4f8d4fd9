"""A memory around an encoder, so that no picture or text is encoded twice."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final, Self

import numpy as np
import torch
from PIL import Image

from personae.errors import EncoderError
from personae.vision.encoder import Encoder, Kind

REMEMBERED_PICTURES: Final = 8192
"""Pictures and texts whose vectors are kept: a study of four techniques, 6 characters, 3 seeds."""

REMEMBERED_LAYOUTS: Final = 128
"""Pictures whose layouts are kept; one takes 0.4 to 5 MB, and each evaluation has its own."""


class CachedEncoder(Encoder):
    """An encoder that encodes no picture or text twice.

    It is recognised by its content, so a picture read again from its file counts as the same.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.weights = encoder.weights
        self._images: OrderedDict[Hashable, np.ndarray] = OrderedDict()
        self._layouts: OrderedDict[Hashable, np.ndarray] = OrderedDict()
        self._texts: OrderedDict[Hashable, np.ndarray] = OrderedDict()

    @property
    def name(self) -> str:  # type: ignore[override]  # others have one per class
        """Return the name of the encoder within."""
        return self.encoder.name

    @property
    def kind(self) -> Kind:  # type: ignore[override]  # others have one per class
        """Return the kind of the encoder within."""
        return self.encoder.kind

    @property
    def source(self) -> str:  # type: ignore[override]  # others have one per class
        """Return the source of the encoder within."""
        return self.encoder.source

    @classmethod
    def load(cls, source: str | None, device: torch.device) -> Self:
        """Refuse: it has no weights of its own."""
        raise EncoderError(
            "a remembering encoder is made from a loaded one: CachedEncoder(encoder)"
        )

    def embed_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Return the rows of `images`, encoding those not seen before."""
        keys = [picture_key(image) for image in images]
        encode = self.encoder.embed_images
        return _recalled(keys, images, encode, self._images, REMEMBERED_PICTURES)

    def embed_layout(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Return the layouts of `images`, encoding those not seen lately."""
        keys = [picture_key(image) for image in images]
        encode = self.encoder.embed_layout
        return _recalled(keys, images, encode, self._layouts, REMEMBERED_LAYOUTS)

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return the rows of `texts`, encoding those not read before."""
        encode = self.encoder.embed_texts
        return _recalled(list(texts), texts, encode, self._texts, REMEMBERED_PICTURES)

    def similarity(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return what the encoder within says."""
        return self.encoder.similarity(rows, columns)


def picture_key(image: Image.Image) -> bytes:
    """Return a digest of a picture's pixels, size and mode."""
    digest = hashlib.blake2b(f"{image.mode}{image.size}".encode(), digest_size=16)
    digest.update(image.tobytes())
    return digest.digest()


def _recalled(
    keys: Sequence[Hashable],
    things: Sequence[Any],
    encode: Callable[[list[Any]], np.ndarray],
    memory: OrderedDict[Hashable, np.ndarray],
    capacity: int,
) -> np.ndarray:
    new = {key: thing for key, thing in zip(keys, things, strict=True) if key not in memory}
    fresh = dict(zip(new, encode(list(new.values())), strict=True)) if new else {}
    rows = [fresh[key] if key in fresh else memory[key] for key in keys]
    for key, row in zip(keys, rows, strict=True):
        memory[key] = row
        memory.move_to_end(key)
    while len(memory) > capacity:
        memory.popitem(last=False)
    return np.stack(rows) if rows else np.zeros((0, 0), dtype=np.float32)
