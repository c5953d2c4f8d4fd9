"""Layers of a network by their names."""

from __future__ import annotations

import re
from typing import TypeAlias

from torch import nn

from personae.errors import UnsupportedError

Layer: TypeAlias = nn.Linear | nn.Conv2d


def layers_matching(root: nn.Module, pattern: str) -> dict[str, Layer]:
    """Return {dotted name: module} of the Linear and Conv2d layers whose name matches `pattern`.

    Raises:
        UnsupportedError: attention projections were fused, so that hooks would be skipped.
    """
    modules = dict(root.named_modules())
    if any(name.endswith(("to_qkv", "to_kv")) for name in modules):
        raise UnsupportedError(
            "the base has fused attention projections; call unfuse_qkv_projections() on it first"
        )
    return {
        name: module
        for name, module in modules.items()
        if isinstance(module, nn.Linear | nn.Conv2d) and re.search(pattern, name)
    }
