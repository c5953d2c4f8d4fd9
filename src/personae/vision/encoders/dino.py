"""DINO ViT-S/16: the features the DINO score was defined with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from personae.vision.transformers_encoder import TransformersEncoder


class Dino(TransformersEncoder):
    """The [CLS] features of DINO; with it, likeness is the score of the DreamBooth paper."""

    name = "dino"
    kind = "identity"
    source = "Caron et al. 2021, arXiv:2104.14294; used by Ruiz et al. 2022, arXiv:2208.12242"
    default = "facebook/dino-vits16"

    @classmethod
    def recognises(cls, source: str) -> bool:
        """Accept the hub ids of DINO."""
        return source.startswith("facebook/dino-vit")

    @classmethod
    def open_network(cls, folder: Path) -> nn.Module:
        """Return the vision transformer in float32, without the pooling layer DINO has not."""
        from transformers import ViTModel

        network: nn.Module = ViTModel.from_pretrained(
            folder, dtype=torch.float32, add_pooling_layer=False, local_files_only=True
        )
        return network

    def pool(self, output: Any) -> Tensor:
        """Return the [CLS] state."""
        state: Tensor = output.last_hidden_state[:, 0]
        return state
