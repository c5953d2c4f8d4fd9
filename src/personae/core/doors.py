"""The door of a room: the names it shows to guests, each loaded when it is first asked for.

A room's `__init__` names them, so that importing the room takes nothing along and no circle of
imports can pass through it. Inside the package, files import the file that defines a name.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any


def door(
    room: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` for a room.

    Args:
        room: the room's `__name__`.
        homes: {name: module below the room that defines it}; "" is a module of that name.
    """
    shadowed = {name for name, home in homes.items() if home}

    class Room(ModuleType):
        """A room in which `train` is what it shows, not the module `train` that defines it."""

        def __setattr__(self, name: str, value: object) -> None:
            # Importing a module binds it in its package, over a shown name of the same spelling.
            if not (name in shadowed and isinstance(value, ModuleType)):
                super().__setattr__(name, value)

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module '{room}' has no attribute '{name}'")
        if not homes[name]:
            return importlib.import_module(f"{room}.{name}")
        value = getattr(importlib.import_module(f"{room}.{homes[name]}"), name)
        setattr(sys.modules[room], name, value)
        return value

    sys.modules[room].__class__ = Room
    return load, lambda: sorted(homes)
