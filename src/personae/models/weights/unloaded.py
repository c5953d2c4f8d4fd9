"""Networks that leave memory, and are in it again for the length of each call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from personae.core.memory import give_back_freed
from personae.errors import BaseError
from personae.models.weights.files import placeholder, read_into, weight_bytes
from personae.models.weights.places import TensorEntry, places_of, weight_files
from personae.models.weights.quantised import is_quantised

LARGE = 32 * 2**20  # bytes; smaller parts are not worth a reading of their own


class Unloaded:
    """Networks of a base that leave memory and are read again when they are needed.

    Their parameters keep identity, shape, format and device; only the values go. A part of a
    network (such as a block of an autoencoder's decoder) has them while it is called. The few that
    belong to no part, such as learnt padding tokens, stay.

    Attributes:
        files: (network, the files it is read from).
        away: whether they are out of memory now.
        keep: is given each part whose values were read to stay, and may put them elsewhere.
    """

    def __init__(self, files: list[tuple[nn.Module, list[Path]]]) -> None:
        self.files = files
        self.away = False
        self.keep: Callable[[nn.Module], None] = _as_it_is
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []

    def unload(self) -> None:
        """Drop the values."""
        if self.away:
            return
        for network, paths in self.files:
            for part, _ in _parts(network, paths):
                _drop(part)
        self._hook()
        self.away = bool(self.files)
        if self.away:
            give_back_freed()

    def reload(self) -> None:
        """Read the values again, where they are away."""
        if not self.away:
            return
        self._unhook()
        self.away = False
        for network, paths in self.files:
            for part, places in _parts(network, paths):
                _read(places, part)
                self.keep(part)

    @contextmanager
    def shapes_only(self) -> Iterator[None]:
        """Let calls read nothing, for passes that are run on shapes alone."""
        self._unhook()
        try:
            yield
        finally:
            if self.away:
                self._hook()

    def _hook(self) -> None:
        for network, paths in self.files:
            for part, places in _parts(network, paths):
                self._hooks += [
                    part.register_forward_pre_hook(partial(_read, places)),
                    part.register_forward_hook(_dropped, always_call=True),
                ]

    def _unhook(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def __enter__(self) -> Self:
        self.unload()
        return self

    def __exit__(self, *_: object) -> None:
        self.reload()

    @property
    def bytes(self) -> int:
        """Return the memory that is free while they are away and nothing calls them."""
        return sum(weight_bytes(network) for network, _ in self.files)

    @property
    def bytes_away(self) -> int:
        """Return the memory that is free because of them now."""
        return self.bytes if self.away else 0

    @property
    def largest_part(self) -> int:
        """Return the most bytes of them that a call brings back."""
        parts = (part for network, _ in self.files for _, part in _called(network))
        return max(map(weight_bytes, parts), default=0)


def readable_again(
    folder: Path, parts: dict[str, nn.Module]
) -> Iterator[tuple[nn.Module, list[Path]]]:
    """Yield those of `parts` (by component name) that `folder` holds in a form read here.

    Not those in 8 or 4 bits: what is read would be whole again.
    """
    for name, network in parts.items():
        if any(map(is_quantised, network.parameters())):
            continue
        paths = weight_files(folder / name)
        if paths and places_of(network, paths) is not None:
            yield network, paths


def _parts(
    network: nn.Module, paths: list[Path]
) -> Iterator[tuple[nn.Module, dict[str, TensorEntry]]]:
    """Yield the parts of a network that hold parameters, and where those lie in the files."""
    places = places_of(network, paths)
    if places is None:
        raise BaseError(
            f"{paths[0]}: holds other weights than when it was loaded; load the base anew"
        )
    for prefix, part in _called(network):
        names = [name for name, _ in part.named_parameters()]
        if names:
            yield part, {name: places[f"{prefix}{name}"] for name in names}


def _called(network: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield the parts of a network that are read when they are called.

    Lists and tables, which nobody calls, and large parts without parameters of their own are taken
    apart.
    """
    for name, part in network.named_children():
        large = weight_bytes(part) > LARGE and not part._parameters and any(part.children())
        if large or isinstance(part, nn.ModuleList | nn.ModuleDict):
            yield from _called(part, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}.", part


def _read(places: dict[str, TensorEntry], part: nn.Module, *_: Any) -> None:
    read_into(part, places, next(part.parameters()).dtype)


def _as_it_is(part: nn.Module) -> None:
    """Leave a part where it was read."""


def _drop(part: nn.Module) -> None:
    for parameter in part.parameters():
        parameter.data = placeholder(parameter.shape, parameter.dtype, parameter.device)


def _dropped(part: nn.Module, *_: Any) -> None:
    _drop(part)
    give_back_freed()
