"""What a family tells its denoiser besides the text, on its way through training and drawing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from personae.characters.reference import Reference
from personae.core.cache import TensorCache
from personae.core.devices import HOST
from personae.generation.generate import draw
from personae.generation.sampler import Shot
from personae.generation.settings import Sampling
from personae.models.families.stable_diffusion import StableDiffusion
from personae.models.text import Conditions, Frame, Text
from personae.training.batches import TrainingSet, make_items
from personae.training.loss import denoising_loss, draw_noise
from personae.training.schedule import Schedule
from personae.training.texts import TextSource
from tiny_world import shallow_pipeline


@dataclass(eq=False)
class Sized(StableDiffusion):
    """A base that is told sizes, crops and guidance, and adds them to what it predicts."""

    name = "sized"
    seen: list[Tensor] = field(default_factory=list)

    def conditions(self, frames: Sequence[Frame], guidance: float | None = None) -> Conditions:
        """Return six numbers and the guidance of each row."""
        rows = [(*f.original, *f.corner, *f.size, guidance or 1.0) for f in frames]
        return Conditions({"sizes": torch.tensor(rows, dtype=torch.float32)})

    def denoise(
        self, noisy: Tensor, t: Tensor, text: Text, conditions: Conditions | None = None
    ) -> Tensor:
        """Note what comes, and let it act."""
        sizes = conditions.values["sizes"]
        assert len(sizes) == len(noisy)
        self.seen.append(sizes)
        return super().denoise(noisy, t, text) + sizes.mean(1)[:, None, None, None]


@pytest.fixture
def sized() -> Sized:
    return Sized.from_pipeline(shallow_pipeline(), "sized", HOST, torch.float32)


def training_set(
    sized: Sized, folder: Path, sizes: list[tuple[int, int]], **how: object
) -> TrainingSet:
    references = []
    for number, size in enumerate(sizes):
        path = folder / f"{number}.png"
        Image.new("RGB", size, (number, 0, 0)).save(path)
        references.append(Reference(path, "a cat"))
    schedule = Schedule(batch_size=len(sizes), steps=1, learning_rate=1.0, **how)
    schedule = schedule.model_copy(update={"resolution": 64})
    items = make_items(references, [("a cat", "a cat")] * len(sizes), sized, schedule)
    return TrainingSet(items, sized, TensorCache(folder), schedule=schedule, seed=0)


def test_each_row_of_a_batch_brings_the_size_and_crop_of_its_own_picture(
    sized: Sized, tmp_path: Path
) -> None:
    pictures = training_set(sized, tmp_path, [(128, 128), (96, 80)])
    batch = pictures.first(2)
    assert batch.frames[0] == Frame((128, 128), (0, 0), (64, 64))
    assert batch.frames[1] == Frame((96, 80), (6, 0), (64, 64))  # 77 x 64 when scaled
    noised = draw_noise(sized, batch, 0, offset=0.0)
    texts = TextSource(sized, TensorCache(tmp_path), frozen=True)
    denoising_loss(sized, noised.joined(noised[1:]), texts(["a cat"] * 3), None)
    assert sized.seen.pop().tolist() == [
        [128, 128, 0, 0, 64, 64, 1],
        [96, 80, 6, 0, 64, 64, 1],
        [96, 80, 6, 0, 64, 64, 1],
    ]


def test_a_crop_and_its_mirror_image_are_told_apart(sized: Sized, tmp_path: Path) -> None:
    pictures = training_set(sized, tmp_path, [(96, 80)], crop="random", flip=True)
    frames = {(item.crop, item.flipped): pictures._frame(item) for item in pictures.items}
    beyond = 96 * 64 / 80 - 64
    assert len({frame.corner for frame in frames.values()}) > 2
    for crop in range(4):
        plain, mirrored = (frames[crop, flipped].corner[0] for flipped in (False, True))
        assert plain + mirrored == pytest.approx(beyond, abs=1)


def test_pictures_are_drawn_as_whole_ones_at_the_guidance_asked_for(sized: Sized) -> None:
    how = Sampling(steps=1, guidance_scale=3.0, width=64, height=128, rows_at_once=1)
    draw(sized, [Shot("a cat"), Shot("the man", 1)], how)
    assert torch.cat(sized.seen).tolist() == [[64, 128, 0, 0, 64, 128, 3]] * 4
