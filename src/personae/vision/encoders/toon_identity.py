"""The identity encoder shipped with the `toon` base: which drawn character is this?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from personae.core.files import EMBEDDED
from personae.vision.transformers_encoder import TransformersEncoder


class ToonIdentity(TransformersEncoder):
    """A small image encoder trained to bring pictures of the same drawn character together.

    The embedding is the pooled output of the network, scaled to length 1. Any transformers folder
    with an image model that pools (ResNet, ConvNeXt, ViT) can be given in place of the shipped one.
    """

    name = "toon_identity"
    kind = "identity"
    source = "recipes/toon; supervised contrastive loss, Khosla et al. 2020, arXiv:2004.11362"
    default = EMBEDDED / "encoders" / "toon_identity"

    @classmethod
    def open_network(cls, folder: Path) -> nn.Module:
        """Return the image model in float32."""
        from transformers import AutoModel

        network: nn.Module = AutoModel.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True
        )
        return network

    def pool(self, output: Any) -> Tensor:
        """Return the pooled output, flattened."""
        pooled: Tensor = output.pooler_output.flatten(1)
        return pooled
