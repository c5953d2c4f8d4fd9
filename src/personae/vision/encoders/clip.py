"""CLIP: pictures and texts in one space."""

from __future__ import annotations

from personae.vision.transformers_encoder import ContrastiveEncoder


class Clip(ContrastiveEncoder):
    """A CLIP of OpenAI's, or any in a transformers folder."""

    name = "clip"
    kind = "image_text"
    source = "Radford et al. 2021, arXiv:2103.00020"
    default = "openai/clip-vit-base-patch32"

    @classmethod
    def recognises(cls, source: str) -> bool:
        """Accept the hub ids of OpenAI's CLIP."""
        return source.startswith("openai/clip-vit-")
