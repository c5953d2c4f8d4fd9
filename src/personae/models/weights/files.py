"""Networks read from safetensors files tensor by tensor, straight into the wanted format.

A file is read, not mapped: mapped pages of float32 weights would count as memory of the process
until the last of them is gone, besides the copies in the wanted format.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from importlib import import_module
from itertools import chain
from pathlib import Path
from queue import SimpleQueue

import torch
from torch import Tensor, nn

from personae.core.devices import HOST
from personae.core.files import safe_name
from personae.core.tensor_header import read_tensor_header
from personae.errors import BaseError
from personae.models.weights.places import (
    WEIGHTS,
    TensorEntry,
    places_of,
    tied_names,
    weight_file,
    weight_files,
)
from personae.models.weights.quantised import stored_bytes
from personae.models.weights.shards import index_file
from personae.models.weights.wholeness import (
    CONFIG,
    network_class,
    require_config,
    require_weights,
    stored_shapes,
)

# Memory touched for the first time is what takes long: 2.1 GB in bf16 took 1.0 s with one reader,
# 0.55 s with two on two cores, and no less with four.
READERS = 2


def networks(
    folder: Path,
    dtype: torch.dtype,
    unloaded: Collection[str] = (),
    device: torch.device = HOST,
    given: Collection[str] = (),
) -> dict[str, nn.Module]:
    """Return the networks of a diffusers folder that can be read here, by component name.

    Left out, for diffusers to load: pickles, and names that it converts.

    Args:
        folder: holds model_index.json and a folder for each component.
        dtype: format of the weights in memory.
        unloaded: components whose parameters get shapes alone, for `Unloaded` to read later.
        device: where those belong; all else is on the host.
        given: components that are there already.

    Raises:
        BaseError: a file is missing or damaged, or lacks a weight.
    """
    found = {}
    for library, kind, part in _components(folder):
        if part.name in given:
            continue
        network = _whole_network(library, kind, part)
        if network is None:
            continue
        places = places_of(network, weight_files(part, WEIGHTS[library]))
        if places is None:
            continue
        alike = {a: b for a, b in tied_names(network).items() if places[a] == places[b]}
        wanted = {key: place for key, place in places.items() if key not in alike}
        if part.name in unloaded:
            here = {*dict(network.named_buffers()), *network._parameters}
            wanted = {key: place for key, place in wanted.items() if key in here}
            _leave_out(network, dtype, device)
        read_into(network, wanted, dtype)
        for name, other in alike.items():
            prefix, _, leaf = name.rpartition(".")
            network.get_submodule(prefix)._parameters[leaf] = network.get_parameter(other)
        found[part.name] = network.eval()
    return found


def _whole_network(library: str, kind: str, folder: Path) -> nn.Module | None:
    """Return the network of a component without values; None if it is none, or in pickles.

    Raises:
        BaseError: a file of it is missing or damaged, or lacks a weight.
    """
    if network_class(library, kind, folder) is None:
        return None
    require_config(folder)
    path = weight_file(folder, WEIGHTS[library])
    index = index_file(folder, WEIGHTS[library])
    if path is None and index is None:
        if any(folder.glob("*.bin")):
            return None
        raise BaseError(f"{folder}: has no {WEIGHTS[library]}; fetch the base again")
    shapes = stored_shapes([path] if path else [], None if path else index)
    try:
        network = empty_network(library, kind, folder)
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RuntimeError) as e:
        reason = (str(e).splitlines() or [type(e).__name__])[0]
        raise BaseError(f"{folder / CONFIG}: makes no {kind} ({reason}); fetch it again") from None
    require_weights(network, shapes, path or folder)
    return network


def _leave_out(network: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
    """Give every parameter of a part a placeholder; the network's own are read by no call."""
    for module in filter(lambda module: module is not network, network.modules()):
        for leaf, parameter in module._parameters.items():
            if parameter is not None:
                value = placeholder(parameter.shape, dtype, device)
                module._parameters[leaf] = nn.Parameter(value, requires_grad=False)


def placeholder(shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return zeros of any shape in the memory of one number."""
    return torch.zeros((), dtype=dtype, device=device).expand(shape)


def stored_parameters(folder: Path) -> int:
    """Return how many parameters the networks of a folder have, 0 where that is unknown."""
    try:
        files = [weight_files(part, WEIGHTS[library]) for library, _, part in _components(folder)]
        return sum(read_tensor_header(path).numel for path in chain.from_iterable(files))
    except (ValueError, AttributeError, OSError):
        return 0


def _components(folder: Path) -> Iterator[tuple[str, str, Path]]:
    """Yield (library, class, folder) of the components whose library can make networks."""
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    for name, described in index.items():
        if not isinstance(described, list):
            continue
        library, kind = described
        if library in WEIGHTS and safe_name(name) == name:
            yield library, kind, folder / name


def read_into(network: nn.Module, places: dict[str, TensorEntry], dtype: torch.dtype) -> None:
    """Give the tensors of `network` that `places` names their values from the files.

    Parameters on the meta device are replaced; others stay the same objects with other data.
    """
    modules = dict(network.named_modules())
    with ExitStack() as opened, ThreadPoolExecutor(READERS) as readers:
        files = {
            path: opened.enter_context(path.open("rb", buffering=0)).fileno()
            for path in {entry.file for entry in places.values()}
        }
        # All memory is this thread's: what others allocate comes from heaps of their own, beside
        # what this one has given back.
        converted = [entry.bytes for entry in places.values() if entry.dtype != dtype]
        spare: SimpleQueue[Tensor] = SimpleQueue()
        for _ in range(READERS if converted else 0):
            spare.put(torch.empty(max(converted), dtype=torch.uint8))
        values = [_room(entry, dtype) for entry in places.values()]
        fill = partial(_read, files, spare)
        for name, value in zip(places, readers.map(fill, places.values(), values), strict=True):
            prefix, _, leaf = name.rpartition(".")
            module = modules[prefix]
            old = getattr(module, leaf)
            if old.is_meta:
                module._parameters[leaf] = nn.Parameter(value, requires_grad=False)
            else:
                old.data = value.to(old.device)


def _room(entry: TensorEntry, dtype: torch.dtype) -> Tensor:
    return torch.empty(entry.shape, dtype=dtype if entry.dtype.is_floating_point else entry.dtype)


def _read(
    files: dict[Path, int], spare: SimpleQueue[Tensor], entry: TensorEntry, value: Tensor
) -> Tensor:
    """Fill `value` from its file and return it; what is to be converted goes through a spare."""
    file = files[entry.file]
    if entry.dtype == value.dtype:
        _fill(file, entry.start, value.view(-1).view(torch.uint8))
        return value
    scratch = spare.get()
    stored = scratch[: entry.bytes]
    _fill(file, entry.start, stored)
    value.copy_(stored.view(entry.dtype).view(entry.shape))
    spare.put(scratch)
    return value


def _fill(file: int, start: int, into: Tensor) -> None:
    room = into.numpy().data
    while len(room):
        count = os.preadv(file, [room], start)
        if not count:
            raise OSError("the file ends before its last tensor")
        room, start = room[count:], start + count


def empty_network(library: str, kind: str, folder: Path) -> nn.Module:
    """Return a network whose parameters have shapes and no values."""
    from accelerate import init_empty_weights

    cls = getattr(import_module(library), kind)
    with init_empty_weights(include_buffers=False):
        if library == "diffusers":
            network: nn.Module = cls.from_config(cls.load_config(folder, local_files_only=True))
        else:
            network = cls(cls.config_class.from_pretrained(folder, local_files_only=True))
    return network


def weight_bytes(network: nn.Module) -> int:
    """Return the bytes of the parameters of a network."""
    return sum(map(stored_bytes, network.parameters()))
