"""What encoders from transformers share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from personae.vision.encoder import Encoder
from personae.vision.pretrained import on_this_machine, opened, weights_folder

BATCH: Final = 16
"""Pictures encoded at once: enough to fill two cores, little memory."""
LAYERS: Final = 5
"""Layers compared by `embed_layout`, as many as LPIPS takes (arXiv:1801.03924, section 3)."""


class TransformersEncoder(Encoder):
    """An encoder that is a folder of a transformers model with its image processor.

    Attributes:
        network: the model, frozen.
        prepare: turns a list of PIL pictures into pixel values (n, 3, h, w).
    """

    default: ClassVar[str | Path]

    def __init__(self, network: nn.Module, prepare: Callable[..., Any], weights: str) -> None:
        self.network: Any = network  # one of transformers' models
        self.prepare, self.weights = prepare, weights

    @classmethod
    def installed(cls) -> bool:
        """Say whether the default weights are shipped, or were fetched before."""
        return on_this_machine(cls.default)

    @classmethod
    def load(cls, source: str | None, device: torch.device) -> Self:
        """Load a hub id or folder; weights already fetched are used without the network."""
        where = source or cls.default
        folder = weights_folder(where, cls.name)
        network = opened(lambda: cls.open_network(folder), where, cls.name)
        prepare = opened(lambda: _image_processor(folder), where, cls.name)
        name = Path(where).name if Path(where).is_dir() else str(where)
        return cls(network.eval().requires_grad_(False).to(device), prepare, name)

    @classmethod
    @abstractmethod
    def open_network(cls, folder: Path) -> nn.Module:
        """Return the float32 model that lies in `folder`."""

    @abstractmethod
    def pool(self, output: Any) -> Tensor:
        """Return the embedding (b, d), of any length, from the output of the vision network."""

    @property
    def vision(self) -> nn.Module:
        """Return the network that reads pixel values."""
        network: nn.Module = self.network
        return network

    def embed_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Return unit rows (n, d)."""
        return self._rows(images, lambda pixels: self.pool(self.vision(pixel_values=pixels)))

    def embed_layout(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Return unit rows (n, D): the channels of `LAYERS` layers, scaled to 1 at each place.

        The squared distance of two rows is LPIPS with all channel weights 1, divided by the
        number of layers.

        Source: Zhang et al. 2018, arXiv:1801.03924, equation 1.
        """
        return self._rows(
            images,
            lambda pixels: layout(
                self.vision(pixel_values=pixels, output_hidden_states=True).hidden_states
            ),
        )

    def _rows(
        self, images: Sequence[Image.Image], encode: Callable[[Tensor], Tensor]
    ) -> np.ndarray:
        device = next(self.network.parameters()).device
        rows = []
        with torch.inference_mode():
            for start in range(0, len(images), BATCH):
                squares = [centre_square(image) for image in images[start : start + BATCH]]
                pixels = self.prepare(images=squares, return_tensors="pt")["pixel_values"]
                rows.append(unit_rows(encode(pixels.to(device))))
        return np.concatenate(rows) if rows else np.zeros((0, 0), dtype=np.float32)


class ContrastiveEncoder(TransformersEncoder):
    """A CLIP: one network for pictures, one for texts, one space for both.

    Attributes:
        tokenizer: turns texts into ids; longer ones than it reads are cut.
    """

    tokenizer: Any

    @classmethod
    def load(cls, source: str | None, device: torch.device) -> Self:
        """Load model, image processor and tokenizer."""
        encoder = super().load(source, device)
        where = source or cls.default
        folder = weights_folder(where, cls.name)
        encoder.tokenizer = opened(lambda: _tokenizer(folder), where, cls.name)
        return encoder

    @classmethod
    def open_network(cls, folder: Path) -> nn.Module:
        """Return the CLIPModel in float32."""
        from transformers import CLIPModel

        network: nn.Module = CLIPModel.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True
        )
        return network

    @property
    def vision(self) -> nn.Module:
        """Return the network that reads pixel values."""
        network: nn.Module = self.network.vision_model
        return network

    def pool(self, output: Any) -> Tensor:
        """Return the pooled output, projected into the space shared with texts."""
        pooled: Tensor = self.network.visual_projection(output.pooler_output)
        return pooled

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return unit rows (n, d)."""
        device = next(self.network.parameters()).device
        rows = []
        with torch.inference_mode():
            for start in range(0, len(texts), BATCH):
                ids = self.tokenizer(
                    list(texts[start : start + BATCH]),
                    padding="max_length",
                    truncation=True,
                    return_tensors="pt",
                ).to(device)
                output = self.network.text_model(ids.input_ids, attention_mask=ids.attention_mask)
                rows.append(unit_rows(self.network.text_projection(output.pooler_output)))
        return np.concatenate(rows) if rows else np.zeros((0, 0), dtype=np.float32)


def unit_rows(rows: Tensor) -> np.ndarray:
    """Return `rows` (n, d) scaled to length 1, float32."""
    return nn.functional.normalize(rows.float(), dim=1).cpu().numpy()


def layout(hidden_states: Sequence[Tensor]) -> Tensor:
    """Return rows (b, D) of length 1 from maps (b, c, h, w) or tokens (b, l, c)."""
    chosen = np.linspace(0, len(hidden_states) - 1, min(LAYERS, len(hidden_states))).round()
    parts = []
    for index in chosen.astype(int):
        states = hidden_states[index].float()
        places = states.flatten(2).transpose(1, 2) if states.ndim == 4 else states  # (b, p, c)
        unit = nn.functional.normalize(places, dim=2)
        parts.append(unit.flatten(1) / (places.shape[1] * len(chosen)) ** 0.5)
    return torch.cat(parts, dim=1)


def centre_square(image: Image.Image) -> Image.Image:
    """Return the largest square around the centre, RGB, so that no encoder stretches a picture."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.convert("RGB")
    if square.size == (side, side):
        return square
    return square.crop((left, top, left + side, top + side))


def _image_processor(folder: Path) -> Callable[..., Any]:
    from transformers import AutoImageProcessor

    # The torchvision backend rounds differently, and torchvision is no dependency.
    prepare: Callable[..., Any] = AutoImageProcessor.from_pretrained(
        folder, backend="pil", local_files_only=True
    )
    return prepare


def _tokenizer(folder: Path) -> Any:
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
