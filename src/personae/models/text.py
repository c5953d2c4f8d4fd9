"""What is handed to a denoiser besides the noisy latents: encoded prompts, and conditions.

The loops that train and draw carry both about, slice them and join them by rows; what they mean is
known to the family alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, cast

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class Text:
    """Encoded prompts.

    Attributes:
        embeds: states of each token, shape (b, l, d), or (b, l, n, d) of n layers of an encoder.
        pooled: one vector per prompt, shape (b, p), for families that use it.
        mask: places that the denoiser reads, shape (b, l) bool; None = all.
        lengths: of each row, how many places come before its padding; None = no row is padded.
            Plain numbers, so that rows can be cut without asking a device for values.
    """

    embeds: Tensor
    pooled: Tensor | None = None
    mask: Tensor | None = None
    lengths: tuple[int, ...] | None = None

    def to(self, device: torch.device, dtype: torch.dtype) -> Text:
        """Return the same text on another device and in another number format."""
        pooled = None if self.pooled is None else self.pooled.to(device, dtype)
        mask = None if self.mask is None else self.mask.to(device)
        return Text(self.embeds.to(device, dtype), pooled, mask, self.lengths)

    def __getitem__(self, rows: slice | Sequence[int]) -> Text:
        lengths = self.lengths
        if lengths is not None:
            lengths = lengths[rows] if isinstance(rows, slice) else tuple(lengths[i] for i in rows)
        pooled = None if self.pooled is None else self.pooled[rows]
        mask = None if self.mask is None else self.mask[rows]
        return Text(self.embeds[rows], pooled, mask, lengths)

    def unpadded(self) -> list[Tensor]:
        """Return the states of each row without its padding, each (l_i, ...)."""
        longest = self.embeds.shape[1]
        lengths = self.lengths or (longest,) * len(self.embeds)
        return [row[:length] for row, length in zip(self.embeds, lengths, strict=True)]

    @staticmethod
    def concatenate(texts: Sequence[Text]) -> Text:
        """Join texts along the batch; shorter ones are padded with zeros that no mask shows."""
        longest = max(text.embeds.shape[1] for text in texts)
        texts = [text._padded_to(longest) for text in texts]
        pooled = (
            None
            if texts[0].pooled is None
            else torch.cat(cast(list[Tensor], [t.pooled for t in texts]))
        )
        mask, lengths = None, None
        if any(text.mask is not None for text in texts):
            mask = torch.cat([text._whole_mask() for text in texts])
        if any(text.lengths is not None for text in texts):
            lengths = tuple(
                length for t in texts for length in t.lengths or (longest,) * len(t.embeds)
            )
        return Text(torch.cat([t.embeds for t in texts]), pooled, mask, lengths)

    def _padded_to(self, length: int) -> Text:
        rows, now = self.embeds.shape[:2]
        if now == length:
            return self
        beyond = (0, 0) * (self.embeds.dim() - 2) + (0, length - now)
        mask = None if self.mask is None else functional.pad(self.mask, (0, length - now))
        lengths = self.lengths or (now,) * rows
        return Text(functional.pad(self.embeds, beyond), self.pooled, mask, lengths)

    def _whole_mask(self) -> Tensor:
        if self.mask is not None:
            return self.mask
        places = torch.arange(self.embeds.shape[1], device=self.embeds.device)
        lengths = self.lengths or (self.embeds.shape[1],) * len(self.embeds)
        return places < torch.tensor(lengths, device=places.device)[:, None]

    def tensors(self) -> dict[str, Tensor]:
        """Return it as named tensors, for a file; `from_tensors` undoes it."""
        optional = {"pooled": self.pooled, "mask": self.mask}
        if self.lengths is not None:
            optional["lengths"] = torch.tensor(self.lengths)
        return {"embeds": self.embeds} | {k: v for k, v in optional.items() if v is not None}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Return the text whose `tensors` these are."""
        lengths = tensors.get("lengths")
        return cls(
            tensors["embeds"],
            tensors.get("pooled"),
            tensors.get("mask"),
            None if lengths is None else tuple(lengths.tolist()),
        )


@dataclass(frozen=True, slots=True)
class Frame:
    """What a row of a batch shows of a picture; all in pixels, x before y.

    Attributes:
        original: width and height of the picture before it was scaled.
        corner: left and top of what is shown, in the scaled picture.
        size: width and height of what is shown.
    """

    original: tuple[int, int]
    corner: tuple[int, int]
    size: tuple[int, int]

    @classmethod
    def whole(cls, width: int, height: int) -> Self:
        """Return the frame of a picture that is shown as it is."""
        return cls((width, height), (0, 0), (width, height))


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a denoiser of one family is told besides noise level and text.

    Attributes:
        values: {name of the family's own: tensor (b, ...)}.
    """

    values: dict[str, Tensor] = field(default_factory=dict)

    def __getitem__(self, rows: Any) -> Conditions:
        return Conditions({name: value[rows] for name, value in self.values.items()})
