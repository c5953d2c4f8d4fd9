"""The networks of a base by their names elsewhere: in diffusers, and in artifacts."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True, slots=True)
class Components:
    """The networks of a base as diffusers names them, in folders and in model_index.json.

    Attributes:
        denoiser: {its name: network}.
        autoencoder: {its name: network}.
        text_encoders: {name: network} in the order of the towers.
    """

    denoiser: dict[str, nn.Module]
    autoencoder: dict[str, nn.Module]
    text_encoders: dict[str, nn.Module]

    @property
    def all(self) -> dict[str, nn.Module]:
        """Return {name: network} of the three roles."""
        return self.denoiser | self.autoencoder | self.text_encoders


def text_component(index: int) -> str:
    """Return how diffusers calls text encoder `index`: text_encoder, text_encoder_2, and so on."""
    return f"text_encoder_{index + 1}" if index else "text_encoder"


def text_network(index: int) -> str:
    """Return how artifacts call text encoder `index`: text_encoder, text_encoder1, and so on."""
    return f"text_encoder{index or ''}"
