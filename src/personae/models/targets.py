"""Which layers of a base techniques may adapt, by their names."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TargetSets:
    """Which layers a technique may adapt, as patterns over the denoiser's module names.

    Attributes:
        sets: {name: regular expression}; each names Linear or Conv2d layers.
        text_keys: layers that read the text as key; text_values: as value.
        self_keys: layers that read hidden states as key; self_values: as value.
        encoder: the attention layers of a text encoder, by their names there.
    """

    sets: dict[str, str]
    text_keys: str | None = None
    text_values: str | None = None
    self_keys: str | None = None
    self_values: str | None = None
    encoder: str = r"self_attn\.(q|k|v|out)_proj$"
