"""From a character to batches of latents and text, the same for every technique.

Which pictures a step sees depends on (seed, step) alone. Latents lie in a cache on disk and are
read when their batch comes, so memory does not grow with the number of pictures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional

from personae.characters.buckets import CropMode, buckets, crop_box, fit, nearest_bucket
from personae.characters.held_out import digest
from personae.characters.reference import Reference
from personae.core.cache import TensorCache
from personae.core.seeds import generator_for
from personae.models.family import Family
from personae.models.text import Frame
from personae.training.schedule import Schedule

RANDOM_CROPS = 4  # cached crops per picture for crop = random


@dataclass(frozen=True, slots=True)
class Item:
    """One cached training picture.

    Attributes:
        reference: where it comes from.
        caption: names the character by the technique's phrase.
        class_caption: names only the class; for prior preservation.
        size: (width, height) in pixels of the picture.
        bucket: the same of what is shown of it.
        flipped, crop: which variant of the picture it is.
    """

    reference: Reference
    caption: str
    class_caption: str
    size: tuple[int, int]
    bucket: tuple[int, int]
    flipped: bool = False
    crop: int = 0

    @property
    def captions(self) -> tuple[str, str]:
        """Return both captions."""
        return self.caption, self.class_caption


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one forward pass.

    Attributes:
        latents: (b, c, h, w) float32, scaled.
        mask: (b, 1, h, w) loss weights of each place, mean 1 in each row, or None.
        weights: (b,) loss weight of each row.
        captions: b captions; class_captions: b captions without the character.
        frames: what each row shows of its picture.
    """

    latents: Tensor
    mask: Tensor | None
    weights: Tensor
    captions: list[str]
    class_captions: list[str]
    frames: list[Frame]

    def __getitem__(self, rows: slice) -> Batch:
        mask = None if self.mask is None else self.mask[rows]
        facts = (self.captions[rows], self.class_captions[rows], self.frames[rows])
        return Batch(self.latents[rows], mask, self.weights[rows], *facts)

    def joined(self, other: Batch) -> Batch:
        """Return the rows of both, which have one size."""
        mask = None
        if self.mask is not None or other.mask is not None:
            mask = torch.cat([each.whole_mask() for each in (self, other)])
        return Batch(
            torch.cat([self.latents, other.latents]),
            mask,
            torch.cat([self.weights, other.weights]),
            [*self.captions, *other.captions],
            [*self.class_captions, *other.class_captions],
            [*self.frames, *other.frames],
        )

    def whole_mask(self) -> Tensor:
        """Return the mask, ones where there is none."""
        rows, _, *size = self.latents.shape
        return torch.ones(rows, 1, *size) if self.mask is None else self.mask


class TrainingSet:
    """The items of a run and their order.

    Args:
        items: what is trained on, repeats included.
        base: encodes pictures.
        cache: keeps latents.
        schedule: batch size, crops and masks.
        seed: decides the order.
    """

    def __init__(
        self,
        items: Sequence[Item],
        base: Family,
        cache: TensorCache,
        *,
        schedule: Schedule,
        seed: int,
    ) -> None:
        self.items, self.base, self.cache = list(items), base, cache
        self.schedule, self.seed = schedule, seed
        self.encoder = base.autoencoding
        self._hashes: dict[Path, str] = {}

    def prepare(self) -> Iterator[tuple[int, int]]:
        """Encode every item that is not in the cache yet, yielding (done, total)."""
        for done, item in enumerate(self.items, start=1):
            self._load(item)
            yield done, len(self.items)

    def batch(self, step: int, part: int = 0) -> Batch:
        """Return the batch of forward pass `part` of optimiser step `step`."""
        number = step * self.schedule.gradient_accumulation + part
        per_epoch = sum(len(group) for group in self._groups(0))
        epoch, place = divmod(number, per_epoch)
        batches = [rows for group in self._groups(epoch) for rows in group]
        order = torch.randperm(per_epoch, generator=generator_for(self.seed, "epoch", epoch))
        return self._collate([self.items[i] for i in batches[order[place]]])

    def first(self, count: int) -> Batch:
        """Return up to `count` items of the first bucket, in fixed order, for probes."""
        bucket = self.items[0].bucket
        return self._collate([item for item in self.items if item.bucket == bucket][:count])

    def _groups(self, epoch: int) -> Iterator[list[list[int]]]:
        """Yield, for each bucket, batches of item numbers; all batches are full."""
        size = self.schedule.batch_size
        by_bucket: dict[tuple[int, int], list[int]] = {}
        for i, item in enumerate(self.items):
            by_bucket.setdefault(item.bucket, []).append(i)
        for bucket, members in sorted(by_bucket.items()):
            generator = generator_for(self.seed, "order", epoch, *bucket)
            count = -(-len(members) // size) * size
            rounds = [
                torch.randperm(len(members), generator=generator)
                for _ in range(-(-count // len(members)))
            ]
            order = [members[i] for i in torch.cat(rounds)[:count].tolist()]
            yield [order[i : i + size] for i in range(0, count, size)]

    def _collate(self, items: Sequence[Item]) -> Batch:
        loaded = [self._load(item) for item in items]
        latents = torch.stack([tensors["latents"] for tensors in loaded])
        mask = None
        if any("mask" in tensors for tensors in loaded):
            plain = torch.ones(1, *latents.shape[2:])
            mask = torch.stack([self._loss_mask(tensors.get("mask", plain)) for tensors in loaded])
        return Batch(
            latents=latents,
            mask=mask,
            weights=torch.tensor([item.reference.loss_weight for item in items]),
            captions=[item.caption for item in items],
            class_captions=[item.class_caption for item in items],
            frames=[self._frame(item) for item in items],
        )

    def _frame(self, item: Item) -> Frame:
        left, top, right, _ = crop_box(item.size, item.bucket, *self._crop(item))
        scale = item.bucket[0] / (right - left)
        if item.flipped:
            left = item.size[0] - right
        return Frame(item.size, (round(left * scale), round(top * scale)), item.bucket)

    def _crop(self, item: Item) -> tuple[CropMode, np.random.Generator]:
        return self.schedule.crop, np.random.default_rng(item.crop)

    def _loss_mask(self, mask: Tensor) -> Tensor:
        low = self.schedule.unmasked_weight
        weighted = low + (1 - low) * mask
        return weighted / weighted.mean().clamp(min=1e-6)

    def _load(self, item: Item) -> dict[str, Tensor]:
        reference = item.reference
        mask = reference.mask and (self.digest(reference.mask), reference.mask_inverted)
        content = (self.digest(reference.path), mask)
        variant = (item.bucket, item.flipped, item.crop, self.schedule.crop)
        key = ("latents", self.encoder, str(self.base.dtype), content, variant)
        return self.cache.get(key, partial(self._encode, item))

    def digest(self, path: Path) -> str:
        """Return the sha256 of a picture or mask as it was when it was read first."""
        if path not in self._hashes:
            self._hashes[path] = digest(path)
        return self._hashes[path]

    @torch.no_grad()
    def _encode(self, item: Item) -> dict[str, Tensor]:
        picture, mask = item.reference.image(), item.reference.mask_image()
        image, mask = fit(picture, item.bucket, *self._crop(item), mask=mask)
        if item.flipped:
            image, mask = ImageOps.mirror(image), mask and ImageOps.mirror(mask)
        encoded = {"latents": self.base.encode_image(to_pixels(image)[None])[0].float()}
        if mask is not None:
            white = torch.from_numpy(np.asarray(mask, dtype=np.float32) / 255)
            size = encoded["latents"].shape[1:]
            encoded["mask"] = functional.interpolate(white[None, None], size=size, mode="area")[0]
        return encoded


def make_items(
    references: Sequence[Reference],
    captions: Sequence[tuple[str, str]],
    base: Family,
    schedule: Schedule,
) -> list[Item]:
    """Return the items of `references`: repeats, mirrored and cropped variants.

    Args:
        references: pictures.
        captions: for each picture, its caption and its class caption.
        base: gives resolution and size step.
        schedule: resolution, crop and flip.
    """
    resolution = schedule.resolution or base.resolution
    shapes = buckets(resolution, step=min(base.size_step, resolution))
    items: list[Item] = []
    for reference, (caption, class_caption) in zip(references, captions, strict=True):
        size = reference.image().size
        plain = Item(reference, caption, class_caption, size, nearest_bucket(size, shapes))
        crops = range(RANDOM_CROPS if schedule.crop == "random" else 1)
        flips = (False, True) if schedule.flip else (False,)
        variants = [replace(plain, crop=crop, flipped=flip) for crop in crops for flip in flips]
        items += variants * reference.repeats
    return items


def to_pixels(image: Image.Image) -> Tensor:
    """Return (3, H, W) float32 in [-1, 1] of an RGB image."""
    array = np.asarray(image.convert("RGB"), dtype=np.float32) / 127.5 - 1
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()
