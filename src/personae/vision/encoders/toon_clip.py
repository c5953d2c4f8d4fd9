"""The CLIP shipped with the `toon` base: does the drawing show what the prompt says?"""

from __future__ import annotations

from personae.core.files import EMBEDDED
from personae.vision.transformers_encoder import ContrastiveEncoder


class ToonClip(ContrastiveEncoder):
    """A small CLIP trained on the captions and pictures of the `toon` base."""

    name = "toon_clip"
    kind = "image_text"
    source = "recipes/toon; contrastive loss of Radford et al. 2021, arXiv:2103.00020"
    default = EMBEDDED / "encoders" / "toon_clip"
