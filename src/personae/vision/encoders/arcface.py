"""ArcFace: identity of photographed human faces, through the `insightface` library."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import torch
from PIL import Image, ImageOps

from personae.core.devices import HOST
from personae.errors import EncoderError
from personae.vision.encoder import Encoder

DETECTOR_SIDE: Final = 640
"""Side in pixels at which faces are looked for: the library's own."""

PADDING: Final = 0.4
"""Black border tried where no face is found, as part of the side: faces that fill the picture
are missed without it (MirrorMetrics)."""


class ArcFace(Encoder):
    """The largest face of each picture; a picture without a face is a row of zeros."""

    name = "arcface"
    kind = "identity"
    source = "Deng et al. 2019, arXiv:1801.07698; insightface, buffalo_l"
    default = "buffalo_l"

    def __init__(self, app: Any, weights: str) -> None:
        self.app, self.weights = app, weights

    @classmethod
    def load(cls, source: str | None, device: torch.device) -> Self:
        """Load an insightface pack by name or folder (default `buffalo_l`)."""
        try:
            from insightface.app import FaceAnalysis
        except ImportError:
            raise EncoderError(
                "encoder arcface: the insightface library is not installed; "
                "pip install insightface onnxruntime"
            ) from None
        folder = Path(source or cls.default)
        place = {"root": str(folder.parent.parent)} if folder.is_dir() else {}
        try:
            app = FaceAnalysis(
                name=folder.name, allowed_modules=["detection", "recognition"], **place
            )
            side = (DETECTOR_SIDE, DETECTOR_SIDE)
            app.prepare(ctx_id=-1 if device.type == HOST.type else device.index or 0, det_size=side)
        except (OSError, RuntimeError, AssertionError) as error:
            raise EncoderError(
                f"encoder arcface: the weights '{folder}' could not be loaded or fetched "
                f"({error}); connect once, or give their folder (arcface:FOLDER/models/buffalo_l)"
            ) from None
        return cls(app, folder.name)

    def embed_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Return unit rows (n, 512), zeros where no face is found."""
        rows = np.zeros((len(images), 512), dtype=np.float32)
        for row, image in zip(rows, images, strict=True):
            padded = ImageOps.expand(image.convert("RGB"), round(PADDING * min(image.size)))
            faces = self._faces(image) or self._faces(padded)
            if faces:
                largest = max(faces, key=lambda face: float(np.prod(face.bbox[2:] - face.bbox[:2])))
                row[:] = largest.normed_embedding
        return rows

    def _faces(self, image: Image.Image) -> list[Any]:
        blue_first = np.asarray(image.convert("RGB"))[:, :, ::-1]  # as the library reads it
        faces: list[Any] = self.app.get(blue_first)
        return faces
