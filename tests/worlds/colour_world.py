"""Encoders that see colours, and pictures of which they know everything.

The upper half of a picture is the character, the lower half the scene. Red, green and blue are as
unlike as can be (cosine 0), so every metric has a value that can be told beforehand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from PIL import Image

from personae.evaluation.metric import Evidence, Sample
from personae.vision.encoder import Encoder

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def picture(character: str, scene: str = "red", scene_right: str | None = None) -> Image.Image:
    """Return a picture of a character of one colour in a scene of one or two colours."""
    image = Image.new("RGB", (8, 8), COLOURS[scene])
    image.paste(COLOURS[scene_right or scene], (4, 4, 8, 8))
    image.paste(COLOURS[character], (0, 0, 8, 4))
    return image


def sample(
    character: str,
    scene: str = "red",
    *,
    prompt: str = "",
    shot: str = "shot",
    seed: int = 0,
    medium: str | None = None,
) -> Sample:
    """Return a drawn picture; the prompt asks for its scene unless another is given."""
    return Sample(picture(character, scene), prompt or f"a {scene} place", shot, seed, medium)


class _Colours(Encoder):
    source = "this test"
    weights = "none"

    @classmethod
    def load(cls, source: str | None, device: torch.device) -> Self:
        return cls()

    def _mean(self, images: Sequence[Image.Image], rows: slice) -> np.ndarray:
        means = [_pixels(image)[rows].mean(axis=(0, 1)) for image in images]
        return _unit(np.array(means, dtype=np.float32).reshape(len(images), 3))


class CharacterColour(_Colours):
    """Sees the upper half: who is it?"""

    name = "character_colour"
    kind = "identity"

    def embed_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        return self._mean(images, slice(0, 4))


class SceneColour(_Colours):
    """Sees the lower half and reads colour words: where is it?"""

    name = "scene_colour"
    kind = "image_text"

    def embed_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        return self._mean(images, slice(4, 8))

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        named = [[float(word in text.split()) for word in COLOURS] for text in texts]
        return _unit(np.array(named, dtype=np.float32))

    def embed_layout(self, images: Sequence[Image.Image]) -> np.ndarray:
        return _unit(np.array([_pixels(image).ravel() for image in images]))


def _pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image.resize((8, 8), Image.Resampling.BOX), dtype=np.float32)


def _unit(rows: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1)


def evidence(
    generated: Sequence[Sample],
    training: Sequence[Image.Image] = (),
    held_out: Sequence[Image.Image] = (),
    class_generated: Sequence[Sample] = (),
    base_class: Sequence[Sample] = (),
    **more: Any,  # other parts of the evidence, by their names
) -> Evidence:
    """Return evidence seen through the colour encoders."""
    return Evidence(
        generated,
        training,
        held_out,
        CharacterColour(),
        SceneColour(),
        class_generated,
        base_class,
        **more,
    )
