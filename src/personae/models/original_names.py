"""How the code that a base was published with names the layers of a diffusers network.

ComfyUI and most trainers keep these names in LoRA files and in single-file weights. One layer
there may be several here: the projections of an attention lie in one matrix, a part below the
other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

NUMBER: Final = "#"
"""Stands for the number of a block in a rule."""


class OriginalNames:
    """The layers that are called otherwise, or lie in one matrix, in the original code.

    Args:
        rules: {path of a layer there: paths here, in the order of their rows}. `#` stands for
            the number of a block. Layers without a rule have the same path in both. A rule for the
            whole name of a tensor goes before one for its layer.
        swapped: {path there: path here} of layers whose halves are exchanged. Updates of them are
            not read.
    """

    def __init__(
        self, rules: Mapping[str, tuple[str, ...]], swapped: Mapping[str, str] | None = None
    ) -> None:
        self.swapped = dict(swapped or {})
        self._rules = {
            re.compile(re.escape(part).replace(re.escape(NUMBER), r"(\d+)")): (original, parts)
            for original, parts in rules.items()
            for part in parts
        }

    def of(self, layers: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """Return {path there: paths here} over all `layers` of a network.

        A matrix of several layers is left out where one of them is missing.
        """
        known = dict.fromkeys(layers)
        found: dict[str, tuple[str, ...]] = {}
        for layer in known:
            original, parts = self._of(layer)
            if all(part in known for part in parts):
                found[original] = parts
        return found

    def _of(self, layer: str) -> tuple[str, tuple[str, ...]]:
        for pattern, (original, parts) in self._rules.items():
            if match := pattern.fullmatch(layer):
                number = match[1] if match.groups() else ""
                numbered = tuple(part.replace(NUMBER, number) for part in parts)
                return original.replace(NUMBER, number), numbered
        return layer, (layer,)
