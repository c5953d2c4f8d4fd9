"""Ways to teach a base one character; one file each, found by being here.

A plug-in author needs `Technique` and `TechniqueConfig` from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from personae.core.doors import door

if TYPE_CHECKING:
    from personae.techniques.technique import (
        Leaner,
        Technique,
        allocated_on,
        key_of,
        layer_of,
    )
    from personae.techniques.technique_config import TechniqueConfig

__all__ = [
    "Leaner",
    "Technique",
    "TechniqueConfig",
    "allocated_on",
    "key_of",
    "layer_of",
]

__getattr__, __dir__ = door(
    __name__,
    {
        "Leaner": "technique",
        "Technique": "technique",
        "TechniqueConfig": "technique_config",
        "allocated_on": "technique",
        "key_of": "technique",
        "layer_of": "technique",
    },
)
