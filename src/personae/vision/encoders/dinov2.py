"""DINOv2: general image features, good at telling instances of a kind apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from personae.vision.transformers_encoder import TransformersEncoder


class DinoV2(TransformersEncoder):
    """The [CLS] features of DINOv2 after its last normalisation."""

    name = "dinov2"
    kind = "identity"
    source = "Oquab et al. 2023, arXiv:2304.07193"
    default = "facebook/dinov2-small"

    @classmethod
    def recognises(cls, source: str) -> bool:
        """Accept the hub ids of DINOv2."""
        return source.startswith("facebook/dinov2-")

    @classmethod
    def open_network(cls, folder: Path) -> nn.Module:
        """Return the vision transformer in float32."""
        from transformers import AutoModel

        network: nn.Module = AutoModel.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True
        )
        return network

    def pool(self, output: Any) -> Tensor:
        """Return the [CLS] state."""
        state: Tensor = output.last_hidden_state[:, 0]
        return state
