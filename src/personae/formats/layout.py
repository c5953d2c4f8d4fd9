"""The kinds of checkpoint that other tools tell apart; names in files depend on them.

A family says which kind it is (`Family.file_layout`); what that means for files is here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from personae.errors import UnsupportedError
from personae.formats import ldm_names
from personae.models.family import Family

if TYPE_CHECKING:
    from diffusers import ModelMixin

XL_PREFIXES = ("lora_te1_", "lora_te2_")


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


# {kind: (predicts the noise, predicts v)}
LAYOUTS = {
    "sd1": (
        Layout("sd1", "sd_v1", "stable-diffusion-v1", False, ("lora_te_",)),
        Layout("sd1", "sd_v1_v", "stable-diffusion-v1", True, ("lora_te_",)),
    ),
    "sd2": (
        Layout("sd2", "sd_v2", "stable-diffusion-v2-512", False, ("lora_te_",)),
        Layout("sd2", "sd_v2_v", "stable-diffusion-v2-768-v", True, ("lora_te_",)),
    ),
    "sdxl": tuple(
        Layout("sdxl", "sdxl_base_v1-0", "stable-diffusion-xl-v1-base", v, XL_PREFIXES)
        for v in (False, True)
    ),
}


def layout_of(base: Family) -> Layout:
    """Return the layout of `base`.

    Raises:
        UnsupportedError: other tools have no such files for its family.
    """
    if base.file_layout not in LAYOUTS:
        raise UnsupportedError(
            f"base '{base.source}' ({base.name}) has no files that other tools know by these "
            f"names; this format is for bases of the kinds {', '.join(LAYOUTS)}"
        )
    v: bool = base.scheduler_config.get("prediction_type", "epsilon") == "v_prediction"
    return LAYOUTS[base.file_layout][v]


def ldm_unet_name(denoiser: ModelMixin, name: str) -> str:
    """Return the LDM name of a module or parameter of `denoiser`."""
    attention_up = [hasattr(block, "attentions") for block in denoiser.up_blocks]
    return ldm_names.unet_name(name, denoiser.config.layers_per_block, attention_up)
