"""A denoiser in a single file of its own; the rest of its base lies in a folder beside the file.

Such files are what ComfyUI reads of transformer bases: no text encoder, no autoencoder, the names
of the original code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from personae.errors import BaseError
from personae.models.original_names import OriginalNames
from personae.models.weights.files import empty_network, read_into
from personae.models.weights.places import TensorEntry, entries_of, places_of
from personae.models.weights.sources import pipeline_class

PREFIXES = ("model.diffusion_model.", "diffusion_model.", "")
"""Of all names of a denoiser: in whole checkpoints of ComfyUI, in parts of them, in files alone."""


def folder_beside(file: Path, pipeline: str, hub_id: str) -> Path:
    """Return the diffusers folder with the rest of the base: the file's name without its ending.

    Args:
        file: holds the denoiser alone.
        pipeline: class that the folder must be of.
        hub_id: where people get such a folder, for the message.

    Raises:
        BaseError: it is not there, or of another class.
    """
    folder = file.with_suffix("")
    if not (folder / "model_index.json").is_file():
        raise BaseError(
            f"{file}: holds the denoiser alone; put the other parts beside it as {folder.name}/, "
            f"a diffusers folder such as {hub_id} (its own denoiser may be left out)"
        )
    found = pipeline_class(folder)
    if found != pipeline:
        raise BaseError(
            f"{folder}: is of {found}, and {file.name} needs the other parts of a {pipeline}, such "
            f"as {hub_id}"
        )
    return folder


def denoiser_of(
    file: Path, folder: Path, kind: str, names: OriginalNames, dtype: torch.dtype
) -> nn.Module:
    """Return the denoiser whose weights are in `file`, and whose settings are in `folder`.

    Args:
        file: safetensors, under the names of diffusers or of the original code.
        folder: of the component, with its config.json.
        kind: class in diffusers.
        names: of the original code.
        dtype: format of the weights in memory.

    Raises:
        BaseError: a weight is missing, of another shape, quantised, or of no such denoiser.
    """
    if not (folder / "config.json").is_file():
        raise BaseError(f"{folder}: has no config.json, which says how {file.name} is to be read")
    network = empty_network("diffusers", kind, folder)
    places = places_of(network, [file])
    original = places is None
    if places is None:
        places = _original_places(network, file, names)
    read_into(network, places, dtype)
    for layer in names.swapped.values() if original else ():
        for value in network.get_submodule(layer).parameters():
            value.data = torch.cat(value.data.chunk(2)[::-1])
    return network.eval()


def _original_places(
    network: nn.Module, file: Path, names: OriginalNames
) -> dict[str, TensorEntry]:
    """Return where each tensor of `network` lies: a whole tensor of the file, or rows of one."""
    entries = _entries(file)
    prefix = next(each for each in PREFIXES if any(name.startswith(each) for name in entries))
    entries = {
        name.removeprefix(prefix): entry
        for name, entry in entries.items()
        if name.startswith(prefix)
    }
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    places: dict[str, TensorEntry] = {}
    for original, parts in _tensors(shapes, names).items():
        if original not in entries:
            raise BaseError(f"{file}: has no '{original}', which the base needs; fetch it again")
        rows = _rows(entries.pop(original), [shapes[part] for part in parts])
        if rows is None:
            raise BaseError(
                f"{file}: '{original}' has another shape than the settings beside it say; it is of "
                "another size or kind of base"
            )
        places |= dict(zip(parts, rows, strict=True))
    return places


def _entries(file: Path) -> dict[str, TensorEntry]:
    try:
        return entries_of(file)
    except KeyError as error:
        raise BaseError(
            f"{file}: has weights in the format {error.args[0]}, quantised for drawing; training "
            "needs them in bf16, fp16 or fp32: get that file, and quantise with --precision"
        ) from None


def _tensors(
    shapes: Mapping[str, tuple[int, ...]], names: OriginalNames
) -> dict[str, tuple[str, ...]]:
    """Return {tensor of the file: tensors of the network, in the order of rows}."""
    whole = {there: parts for there, parts in names.of(shapes).items() if parts != (there,)}
    ruled = {part for parts in whole.values() for part in parts}
    swapped = {here: there for there, here in names.swapped.items()}
    by_leaf: dict[str, list[str]] = {}
    for name in shapes:
        module, _, leaf = name.rpartition(".")
        if module in swapped:
            whole[f"{swapped[module]}.{leaf}"] = (name,)
        elif name not in ruled:
            by_leaf.setdefault(leaf, []).append(module)
    return whole | {
        f"{original}.{leaf}".removeprefix("."): tuple(
            f"{part}.{leaf}".removeprefix(".") for part in parts
        )
        for leaf, modules in by_leaf.items()
        for original, parts in names.of(modules).items()
    }


def _rows(entry: TensorEntry, shapes: list[tuple[int, ...]]) -> list[TensorEntry] | None:
    """Return the parts of a tensor with these shapes, one below the other; None where unfit."""
    whole = (sum(shape[0] for shape in shapes), *shapes[0][1:]) if shapes[0] else ()
    if entry.shape != whole:
        return None
    found, start = [], entry.start
    for shape in shapes:
        found.append(replace(entry, shape=shape, start=start))
        start += found[-1].bytes
    return found
