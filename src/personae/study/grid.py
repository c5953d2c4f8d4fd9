"""The grid of a study file: each list in it is an axis, and its points are run files.

A list that stands where a setting takes one is a value; there an axis is a list of lists.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from typing import Any, get_args

from personae.core.config import Config
from personae.core.registry import discover, lookup
from personae.techniques.technique import Technique
from personae.training.settings import RunConfig

LABELLED = ("character", "base", "technique", "seed")
"""Axes that a cell states by themselves; all others are listed as swept."""


def expand(
    grid: dict[str, Any], *, where: str = "study"
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield (values of a run file, {swept dotted field: value}) for each point of the grid.

    Raises:
        UsageError: a technique is unknown.
    """
    known = discover(Technique)
    techniques = grid.get("technique", RunConfig.model_fields["technique"].default)
    for technique in techniques if isinstance(techniques, list) else [techniques]:
        names = [name.strip() for name in str(technique).split("+")]
        for name in names:
            lookup(Technique, name)
        own = {key: value for key, value in grid.items() if key not in known or key in names}
        own = {**own, "technique": technique}
        for name in reversed(names):
            table = dict(own.get(name, {}))
            own["schedule"] = {**own.get("schedule", {}), **table.pop("schedule", {})}
            if name in own:
                own[name] = table
        yield from _points(own)


def _points(values: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    axes = dict(_axes(values, RunConfig))
    for chosen in itertools.product(*axes.values()):
        point = copy.deepcopy(values)
        for path, value in zip(axes, chosen, strict=True):
            table = point
            for key in path[:-1]:
                table = table[key]
            table[path[-1]] = value
        swept = {
            ".".join(path): value
            for path, value in zip(axes, chosen, strict=True)
            if path[0] not in LABELLED and len(axes[path]) > 1
        }
        yield point, swept


def _axes(
    values: dict[str, Any], config: type[Config] | None, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], list[Any]]]:
    """Yield (path, values) of each list that stands where one value is expected."""
    for key, value in values.items():
        here = (*path, key)
        if isinstance(value, dict):
            table = config.tables().get(key) if config else None
            yield from _axes(value, table, here)
        elif isinstance(value, list):
            takes_list = config is not None and _is_list(config, key)
            if not takes_list or (value and all(isinstance(each, list) for each in value)):
                yield here, value


def _is_list(config: type[Config], key: str) -> bool:
    """Say whether a setting takes a list, alone or among others (`list[str] | None`)."""
    found = config.model_fields.get(key)
    if found is None:
        return False
    kinds = (found.annotation, *get_args(found.annotation))
    return any(getattr(kind, "__origin__", kind) is list for kind in kinds)
