"""Which of the known shapes a base has, judged by its networks alone.

Other tools tell Stable Diffusion 1, 2 and XL apart; names in files depend on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from personae.errors import UnsupportedError
from personae.formats import ldm_names
from personae.models.family import Family


@dataclass(frozen=True, slots=True)
class Layout:
    """A shape other tools know.

    Attributes:
        kind: Stable Diffusion 1, 2 or XL.
        version: what kohya's scripts call it (`ss_base_model_version`).
        architecture: what the ModelSpec standard calls it.
        v_prediction: whether the network predicts v instead of the noise.
        text_prefixes: kohya's prefix of each text encoder.
    """

    kind: Literal["sd1", "sd2", "sdxl"]
    version: str
    architecture: str
    v_prediction: bool
    text_prefixes: tuple[str, ...]


def layout_of(base: Family) -> Layout:
    """Return the layout of `base`.

    Raises:
        UnsupportedError: it is none of the layouts these formats know.
    """
    config = getattr(base.denoiser, "config", {})
    if not hasattr(base.denoiser, "up_blocks") or len(base.towers) not in (1, 2):
        raise UnsupportedError(
            f"base '{base.source}' ({base.name}) is no U-Net of the Stable Diffusion kind; other "
            "tools keep its characters in formats that are not written here"
        )
    v = base.scheduler_config.get("prediction_type", "epsilon") == "v_prediction"
    if len(base.towers) == 2:
        version = "sdxl_base_v1-0"
        return Layout("sdxl", version, "stable-diffusion-xl-v1-base", v, ("lora_te1_", "lora_te2_"))
    # Version 2 is told by its linear projections; version 1 has 1x1 convolutions there.
    if config.get("use_linear_projection"):
        name = "stable-diffusion-v2-768-v" if v else "stable-diffusion-v2-512"
        return Layout("sd2", "sd_v2_v" if v else "sd_v2", name, v, ("lora_te_",))
    return Layout("sd1", "sd_v1_v" if v else "sd_v1", "stable-diffusion-v1", v, ("lora_te_",))


def ldm_unet_name(denoiser: nn.Module, name: str) -> str:
    """Return the LDM name of a module or parameter of `denoiser`."""
    attention_up = [hasattr(block, "attentions") for block in denoiser.up_blocks]
    return ldm_names.unet_name(name, denoiser.config.layers_per_block, attention_up)


def text_network(index: int) -> str:
    """Return how artifacts call the text encoder of tower `index`."""
    return f"text_encoder{index or ''}"
