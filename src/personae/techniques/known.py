"""Which techniques there are and their settings, without importing what they train with.

A wrong option is to be refused at once, and importing torch takes seconds. Techniques of other
packages are imported, as their settings may lie anywhere.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points

from personae.core.registry import pick
from personae.techniques import settings
from personae.techniques.technique_config import TechniqueConfig

GROUP = "personae.techniques"


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a technique before it is imported: its title and its settings."""

    title: str
    Config: type[TechniqueConfig]


@cache
def known_techniques() -> dict[str, Known]:
    """Return what is known of each technique, by its name."""
    if entry_points(group=GROUP):
        from personae.core.registry import discover
        from personae.techniques.technique import Technique

        kinds = discover(Technique)
        return {name: Known(kind.title, kind.Config) for name, kind in kinds.items()}
    found = {}
    for module in pkgutil.iter_modules(settings.__path__):
        (config,) = _configs(f"{settings.__name__}.{module.name}")
        found[module.name] = Known(config.title, config)
    return dict(sorted(found.items()))


def _configs(module: str) -> list[type[TechniqueConfig]]:
    return [
        value
        for value in vars(importlib.import_module(module)).values()
        if isinstance(value, type)
        and issubclass(value, TechniqueConfig)
        and value.__module__ == module
    ]


def known_technique(name: str) -> Known:
    """Return what is known of the technique called `name`.

    Raises:
        UsageError: there is none; the message lists the names and offers the nearest.
    """
    return pick(known_techniques(), name, GROUP)
