"""Finds plug-ins: every class of a folder that has a name, without any list of them.

A plug-in is one module in the package that its kind names, or an entry point of the kind's group in
another package; groups are called by what they hold, as `personae` + `.techniques`.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points
from inspect import isabstract
from typing import Any, ClassVar, Final, TypeVar

from personae.errors import UsageError


class PlugIn:
    """Base of every kind of plug-in: says where those of its kind are.

    Attributes:
        name: what a plug-in is called in commands, settings and files; set by each of them.
        package: package that holds the plug-ins of a kind, one module each; set by the kind.
        group: entry-point group in which other packages offer theirs; set by the kind.
    """

    name: ClassVar[str]
    package: ClassVar[str]
    group: ClassVar[str]


T = TypeVar("T", bound=PlugIn)
V = TypeVar("V")

_FOUND: Final[dict[type[PlugIn], dict[str, Any]]] = {}  # kinds that were searched for already


def discover(kind: type[T]) -> dict[str, type[T]]:
    """Return {name: class} of the concrete subclasses of `kind` in its package, folders included.

    Args:
        kind: base class; it sets `package` and `group`, a plug-in sets its `name`.
    """
    if kind not in _FOUND:
        _FOUND[kind] = _search(kind)
    return _FOUND[kind]


def _search(kind: type[T]) -> dict[str, type[T]]:
    package = importlib.import_module(kind.package)
    modules = [
        importlib.import_module(module.name)
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    ]
    candidates = [value for module in modules for value in vars(module).values()]
    candidates += [point.load() for point in entry_points(group=kind.group)]
    found = {
        value.name: value
        for value in candidates
        if isinstance(value, type)
        and issubclass(value, kind)
        and not isabstract(value)
        and isinstance(getattr(value, "name", None), str)
    }
    return dict(sorted(found.items()))


def lookup(kind: type[T], name: str) -> type[T]:
    """Return the plug-in called `name`.

    Raises:
        UsageError: no such plug-in; the message lists the names and offers the nearest.
    """
    return pick(discover(kind), name, kind.group)


def pick(found: Mapping[str, V], name: str, group: str) -> V:
    """Return what is called `name` in `found`.

    Args:
        found: by name.
        name: what is wanted.
        group: entry-point group of the kind, which says what such plug-ins are called.

    Raises:
        UsageError: it is not there; the message lists the names and offers the nearest.
    """
    if name in found:
        return found[name]
    plural = group.removeprefix("personae.").replace("_", " ")
    raise UsageError(
        f"'{name}' is not one of the {plural} ({', '.join(found)}).{nearest(name, found)}"
    )


def closest(word: str, words: Iterable[str]) -> str | None:
    """Return the one of `words` that `word` was probably meant to be, or None if none is close."""
    return next(iter(difflib.get_close_matches(word, list(words), n=1, cutoff=0.5)), None)


def nearest(word: str, words: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the closest of `words`, or "" if none is close."""
    meant = closest(word, words)
    return "" if meant is None else f" Did you mean '{meant}'?"
