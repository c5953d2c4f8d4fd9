"""Finds plug-ins: every class of a folder that has a name, without any list of them.

A plug-in is one module in `families/`, `techniques/`, `metrics/`, `formats/` or `datasets/`, or an
entry point of the group `personae.<folder>` in another package.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Iterable
from functools import cache
from importlib.metadata import entry_points
from inspect import isabstract
from typing import TypeVar

from personae.errors import UsageError

T = TypeVar("T")


@cache
def discover(folder: str, kind: type[T]) -> dict[str, type[T]]:
    """Return {name: class} of the concrete subclasses of `kind` in `personae.<folder>`.

    Args:
        folder: package below `personae` ("techniques"), also the entry-point group.
        kind: base class; a plug-in sets its `name`.
    """
    package = importlib.import_module(f"personae.{folder}")
    modules = [
        importlib.import_module(f"{package.__name__}.{module.name}")
        for module in pkgutil.iter_modules(package.__path__)
    ]
    candidates = [value for module in modules for value in vars(module).values()]
    candidates += [point.load() for point in entry_points(group=f"personae.{folder}")]
    found = {
        value.name: value
        for value in candidates
        if isinstance(value, type)
        and issubclass(value, kind)
        and not isabstract(value)
        and isinstance(getattr(value, "name", None), str)
    }
    return dict(sorted(found.items()))


def lookup(folder: str, kind: type[T], name: str) -> type[T]:
    """Return the plug-in called `name`.

    Raises:
        UsageError: no such plug-in; the message lists the names and offers the nearest.
    """
    found = discover(folder, kind)
    if name in found:
        return found[name]
    raise UsageError(
        f"'{name}' is not one of the {folder.replace('_', ' ')} ({', '.join(found)})."
        f"{nearest(name, found)}"
    )


def closest(word: str, words: Iterable[str]) -> str | None:
    """Return the one of `words` that `word` was probably meant to be, or None if none is close."""
    return next(iter(difflib.get_close_matches(word, list(words), n=1, cutoff=0.5)), None)


def nearest(word: str, words: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the closest of `words`, or "" if none is close."""
    meant = closest(word, words)
    return "" if meant is None else f" Did you mean '{meant}'?"
