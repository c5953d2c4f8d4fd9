"""Whether a component of a diffusers folder is whole, told before its weights are read.

What is missing or cut short would be told by diffusers and transformers in words of their own, and
transformers fills a text encoder's missing weights with random numbers.
"""

from __future__ import annotations

import json
import re
from collections.abc import KeysView
from importlib import import_module
from pathlib import Path

from torch import nn

from personae.core.tensor_header import HeaderError, read_tensor_header
from personae.errors import BaseError
from personae.models.weights.shards import listed_parts

CONFIG = "config.json"
Shapes = dict[str, tuple[int, ...]]


def require_config(folder: Path) -> None:
    """Refuse a component whose settings are missing or no table.

    Raises:
        BaseError: names the file.
    """
    file = folder / CONFIG
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BaseError(f"{file}: is not there; fetch the base again") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BaseError(f"{file}: is damaged ({_first_line(error)}); fetch it again") from None
    if not isinstance(table, dict):
        raise BaseError(f"{file}: is damaged (it holds no table); fetch it again")


def network_class(library: str, kind: str, folder: Path) -> type[nn.Module] | None:
    """Return the class of a component; None for a tokenizer, a scheduler and the like.

    Raises:
        BaseError: the installed library has no such class.
    """
    module = import_module(library)
    found = getattr(module, kind, None)
    if found is None and (folder / CONFIG).is_file():
        raise BaseError(
            f"{folder.parent / 'model_index.json'}: names '{kind}' for {folder.name}, which "
            f"{library} {module.__version__} does not have; upgrade {library}, or fetch the base "
            "again"
        )
    return found if isinstance(found, type) and issubclass(found, nn.Module) else None


def stored_shapes(files: list[Path], index: Path | None) -> Shapes:
    """Return {tensor: shape} of a component's safetensors files.

    Args:
        files: the one file it lies in, if it lies in one.
        index: lists the files, if it lies in several.

    Raises:
        BaseError: a file is missing, cut short or damaged, or the index says otherwise.
    """
    try:
        listed = listed_parts(index) if index else {}
    except ValueError as error:
        raise BaseError(f"{index}: {error}") from None
    found: dict[Path, Shapes] = {
        file: _shapes(file) for file in dict.fromkeys([*files, *listed.values()])
    }
    for name, file in listed.items():
        if name not in found[file]:
            raise BaseError(f"{file}: does not hold '{name}', as {index} says; fetch both again")
    return {name: shape for shapes in found.values() for name, shape in shapes.items()}


def require_weights(network: nn.Module, shapes: Shapes, place: Path) -> None:
    """Refuse files that lack a weight of `network`, or hold one in another shape.

    Names that an older version of a library wrote are left to the library: where files hold
    tensors that `network` does not know, they may be the missing ones.

    Args:
        network: of the component, with shapes alone.
        shapes: what its files hold.
        place: the file or folder, for the message.

    Raises:
        BaseError: names the first such weight.
    """
    by_end = _names_by_end(shapes)
    wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    for name, shape in wanted.items():
        if name in by_end and shapes[by_end[name]] != shape:
            raise BaseError(
                f"{place}: '{name}' has the shape {list(shapes[by_end[name]])}, and {CONFIG} "
                f"beside it asks for {list(shape)}; they are of different models: fetch both again"
            )
    known = {by_end[name] for name in wanted if name in by_end}
    missing = [
        name
        for name in wanted
        if name not in by_end and not _may_miss(network, name, by_end.keys())
    ]
    if missing and known == set(shapes):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise BaseError(
            f"{place}: has no '{missing[0]}'{more} ({len(wanted)} weights expected); fetch it again"
        )


def _shapes(file: Path) -> Shapes:
    try:
        return read_tensor_header(file).shapes
    except FileNotFoundError:
        raise BaseError(f"{file}: is not there; fetch it again") from None
    except (HeaderError, OSError) as error:
        raise BaseError(f"{file}: is damaged ({error}); fetch it again") from None


def _names_by_end(shapes: Shapes) -> dict[str, str]:
    """Return {what is left of a name without its first parts: name}; the fewest parts go first.

    Files may have all names behind another prefix.
    """
    ends: list[tuple[int, str, str]] = []
    for name in shapes:
        parts = name.split(".")
        ends += [(cut, ".".join(parts[cut:]), name) for cut in range(len(parts))]
    found: dict[str, str] = {}
    for _, end, name in sorted(ends):
        found.setdefault(end, name)
    return found


def _may_miss(network: nn.Module, name: str, stored: KeysView[str]) -> bool:
    """Say whether the value of a weight is found elsewhere: it is tied to one that is stored."""
    tied = getattr(network, "all_tied_weights_keys", None)
    pairs = list(tied.items()) if isinstance(tied, dict) else []
    if any(name in pair and not stored.isdisjoint(pair) for pair in pairs):
        return True
    patterns = getattr(network, "_keys_to_ignore_on_load_missing", None) or ()
    return any(re.search(pattern, name) for pattern in patterns)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
