"""Activations by the names that A1111 gives them, as files of hypernetworks have them."""

from __future__ import annotations

import torch
from torch import nn

# All that A1111 knows and that keep the width of their input and the pictures of a batch apart.
ACTIVATIONS: dict[str, type[nn.Module] | None] = {
    "linear": None,
    "swish": nn.Hardswish,  # A1111's "swish" is Hardswish
    "relu": nn.ReLU,
    "leakyrelu": nn.LeakyReLU,
    "elu": nn.ELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "softsign": nn.Softsign,
    "mish": nn.Mish,
    "celu": nn.CELU,
    "gelu": nn.GELU,
    "hardshrink": nn.Hardshrink,
    "hardsigmoid": nn.Hardsigmoid,
    "hardswish": nn.Hardswish,
    "hardtanh": nn.Hardtanh,
    "logsigmoid": nn.LogSigmoid,
    "prelu": nn.PReLU,
    "relu6": nn.ReLU6,
    "rrelu": nn.RReLU,
    "selu": nn.SELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "softshrink": nn.Softshrink,
    "tanhshrink": nn.Tanhshrink,
}


def at_zero(activation: str) -> tuple[float, float]:
    """Return the value and the slope of an activation at 0."""
    kind = ACTIVATIONS[activation]
    if kind is None:
        return 0.0, 1.0
    zero = torch.zeros(1, requires_grad=True)
    value = kind()(zero)
    return value.item(), torch.autograd.grad(value, zero)[0].item()
