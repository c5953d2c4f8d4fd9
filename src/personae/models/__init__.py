"""Networks that draw: families of base models, their weights, quicker ways to compute them.

`load_base` loads one; plug-in authors need `Family` or `Acceleration` from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from personae.core.doors import door

if TYPE_CHECKING:
    from personae.models.acceleration.acceleration import Acceleration
    from personae.models.acceleration.packs import Packs, is_frozen
    from personae.models.acceleration.wide_products import widened
    from personae.models.family import Family
    from personae.models.layers import layers_matching
    from personae.models.load import load_base
    from personae.models.noise_path import Diffusion, Flow, NoisePath
    from personae.models.recommended import Recommended
    from personae.models.targets import TargetSets
    from personae.models.text import Conditions, Frame, Text
    from personae.models.text_tower import TextTower

__all__ = [
    "Acceleration",
    "Conditions",
    "Diffusion",
    "Family",
    "Flow",
    "Frame",
    "NoisePath",
    "Packs",
    "Recommended",
    "TargetSets",
    "Text",
    "TextTower",
    "is_frozen",
    "layers_matching",
    "load_base",
    "widened",
]

__getattr__, __dir__ = door(
    __name__,
    {
        "Acceleration": "acceleration.acceleration",
        "Conditions": "text",
        "Diffusion": "noise_path",
        "Family": "family",
        "Flow": "noise_path",
        "Frame": "text",
        "NoisePath": "noise_path",
        "Packs": "acceleration.packs",
        "Recommended": "recommended",
        "TargetSets": "targets",
        "Text": "text",
        "TextTower": "text_tower",
        "is_frozen": "acceleration.packs",
        "layers_matching": "layers",
        "load_base": "load",
        "widened": "acceleration.wide_products",
    },
)
