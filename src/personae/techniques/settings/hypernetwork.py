"""The settings of hypernetworks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from personae.techniques.technique_config import TechniqueConfig

WIDEST = 64  # times the width of the context
MOST_LAYERS = 32  # of a network; each is a module that is made before values are compared


class HypernetworkConfig(TechniqueConfig):
    """Settings of hypernetworks."""

    title = "Hypernetwork"

    layer_structure: list[float] = [1, 2, 1]
    """Widths of the layers relative to the context; first and last are 1. [1, 0.25, 1] is a
    low-rank bottleneck, [1, 2, 1] is A1111's default."""
    activation: Literal[
        "linear", "swish", "relu", "leakyrelu", "elu", "tanh", "sigmoid", "softsign", "mish",
        "celu", "gelu", "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "logsigmoid",
        "prelu", "relu6", "rrelu", "selu", "silu", "softplus", "softshrink", "tanhshrink",
    ] = "swish"  # fmt: skip
    """Between the layers; linear means none. ComfyUI knows the first nine."""
    activate_output: bool = False
    """Also after the last layer."""
    layer_norm: bool = False
    """Layer norm after each layer."""
    dropout_structure: list[float] | None = None
    """Dropout after each layer, one number per entry of layer_structure; first and last are 0."""
    initialisation: Literal[
        "zero_last",
        "normal",
        "xavier_uniform",
        "xavier_normal",
        "kaiming_uniform",
        "kaiming_normal",
    ] = "zero_last"
    """zero_last starts exactly at the base; the others are A1111's and do not."""
    self_attention: bool = True
    """Also read by the self-attention layers (their widths get networks of their own)."""
    max_ratio: float = Field(default=1.0, gt=0, le=1000)
    """Bound of the mean size of H(c) relative to c; the last layer is scaled down to keep it."""

    @field_validator("layer_structure")
    @classmethod
    def _ends_are_one(cls, value: list[float]) -> list[float]:
        if len(value) < 2 or value[0] != 1 or value[-1] != 1:
            raise ValueError("must start and end with 1, as [1, 2, 1]")
        if len(value) > MOST_LAYERS:
            raise ValueError(f"has {len(value)} numbers; at most {MOST_LAYERS} are taken")
        if not all(0 < each <= WIDEST for each in value):
            raise ValueError(f"must hold positive numbers up to {WIDEST}, as [1, 2, 1]")
        return value

    @field_validator("dropout_structure")
    @classmethod
    def _dropout_is_inner(cls, value: list[float] | None) -> list[float] | None:
        if value is None:
            return None
        if not value or value[0] or value[-1] or not all(0 <= p < 1 for p in value):
            raise ValueError("must hold numbers in [0, 1) with 0 first and last")
        return value
