"""The captions of a training set, encoded once and kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from personae.core.cache import TensorCache
from personae.models.family import Family
from personae.models.text import Text
from personae.models.weights.fingerprint import fingerprint

TEXTS_IN_MEMORY = 64  # encoded captions kept besides the disk; a quarter of a megabyte each


class TextSource:
    """Encodes captions: once and from the cache when the text side is frozen, else each time."""

    def __init__(self, base: Family, cache: TensorCache, *, frozen: bool) -> None:
        self.base, self.cache, self.frozen = base, cache, frozen
        self._kept: dict[str, Text] = {}
        self.encoders = [fingerprint(tower.encoder) for tower in base.towers]

    def __call__(self, captions: Sequence[str]) -> Text:
        """Return the text of `captions`."""
        if not self.frozen:
            return self.base.encode_text(captions)
        return Text.concatenate([self._cached(caption) for caption in captions])

    def _cached(self, caption: str) -> Text:
        text = self._kept.pop(caption, None)
        if text is None:
            text = Text.from_tensors(self.cache.get(self._key(caption), self._encoding(caption)))
        self._kept[caption] = text  # the latest use comes last
        if len(self._kept) > TEXTS_IN_MEMORY:
            del self._kept[next(iter(self._kept))]
        return text

    def _key(self, caption: str) -> tuple[object, ...]:
        """Return all that an encoding depends on: what each encoder reads says it of templates."""
        ids = [tower.rows([caption]) for tower in self.base.towers]
        return "text", self.base.text_encoding, self.encoders, str(self.base.dtype), ids

    def _encoding(self, caption: str) -> Callable[[], dict[str, Tensor]]:
        @torch.no_grad()
        def encode() -> dict[str, Tensor]:
            return self.base.encode_text([caption]).tensors()

        return encode
