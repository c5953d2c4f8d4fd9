"""What all files of hypernetworks share: networks by width, numbering of layers, and checks.

The layout is A1111's: for each context width a pair of networks for keys and values, whose layers
are numbered through all modules (Linear, activation, LayerNorm, Dropout), though only Linear and
LayerNorm have values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from personae.artifacts.artifact import Artifact, assemble, checked_on, record_of
from personae.artifacts.card import CharacterRecord, TechniqueRecord, stored_name
from personae.core.devices import HOST
from personae.core.registry import lookup
from personae.errors import ArtifactError
from personae.formats.hypernetworks.options import TECHNIQUE, config_from, config_of, options_of
from personae.formats.tensor_file import checked, zeros
from personae.models.family import Family
from personae.techniques.technique import Technique

State = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class HypernetworkFile:
    """The content of a file, whatever its form.

    Attributes:
        networks: {context width: (state for keys, state for values)}, names `linear.<N>.weight`.
        options: A1111's names.
    """

    networks: dict[int, tuple[State, State]]
    options: Mapping[str, Any]


def file_of(
    artifact: Artifact, *, name: str, numbering: dict[int, int] | None = None
) -> HypernetworkFile:
    """Return `artifact` as A1111 keeps it, in float32.

    Args:
        artifact: a hypernetwork.
        name: what A1111 shows.
        numbering: {number of a layer: its number in the file}; as it is when left out.
    """
    networks: dict[int, tuple[State, State]] = {}
    for key, value in lookup(Technique, TECHNIQUE).learnt_in(artifact.tensors).items():
        found = re.fullmatch(r"(\d+)\.([kv])\.(\d+)\.(weight|bias)", key)
        if found:
            width, number = int(found[1]), int(found[3])
            number = numbering[number] if numbering else number
            side = networks.setdefault(width, ({}, {}))[found[2] == "v"]
            side[f"linear.{number}.{found[4]}"] = value.float()
    return HypernetworkFile(networks, options_of(artifact, name=name))


def without_dropout(artifact: Artifact) -> dict[int, int]:
    """Return {number of each layer: its number once the Dropout modules are gone}."""
    config = config_of(artifact)
    plain = config.model_copy(update={"dropout_structure": None})
    before, after = (positions(each.model_dump()) for each in (config, plain))
    return {old[0]: new[0] for old, new in zip(before, after, strict=True)}


def positions(config: Mapping[str, Any]) -> list[tuple[int, str, float, float]]:
    """Return (number, kind, width in, width out) of the layers that have values.

    Kinds are "linear", "norm" and "slope" (of PReLU, one number); widths are relative to the
    context.
    """
    structure = config["layer_structure"]
    dropout = config.get("dropout_structure") or [0.0] * len(structure)
    found, number = [], 0
    for i in range(len(structure) - 1):
        found.append((number, "linear", structure[i], structure[i + 1]))
        last = i == len(structure) - 2
        acts = config["activation"] != "linear" and (not last or config["activate_output"])
        if acts and config["activation"] == "prelu":
            found.append((number + 1, "slope", structure[i + 1], structure[i + 1]))
        number += 1 + acts
        if config["layer_norm"]:
            found.append((number, "norm", structure[i + 1], structure[i + 1]))
            number += 1
        number += dropout[i + 1] > 0
    return found


def hypernetwork_artifact(
    file: HypernetworkFile, base: Family, *, path: Path, title: str, character: CharacterRecord
) -> Artifact:
    """Return a file's content as an artifact for `base`.

    Widths that `base` has no layers for have no effect on it and are left out; widths of `base`
    that are not in the file get networks that change nothing.

    Raises:
        ArtifactError: an option or a shape is wrong, or no width fits.
    """
    _refuse_unknown_kind(base, path)
    config = config_from(file.options, path)
    for width, sides in file.networks.items():
        for state in sides:
            _check_state(state, width, config, path)
    blank = _blank_for(file, config, base)
    config["self_attention"] = blank.config.self_attention
    wanted = {stored_name(TECHNIQUE, name): value for name, value in blank.state_dict().items()}
    widths = _widths(blank)
    present = set(file.networks) & widths
    if not present:
        raise ArtifactError(
            f"{path}: has networks for contexts of width {sorted(file.networks)}; base "
            f"'{base.source}' has {sorted(widths)}; the file is for another kind of base"
        )
    given = _named(file, present)
    lacking = zeros({name: value for name, value in wanted.items() if name not in given}, path)
    if widths - present and not _neutral_when_zero(blank, min(widths)):
        raise ArtifactError(
            f"{path}: has no networks for contexts of width {sorted(widths - present)}, and with "
            f"{config['activation']} at the end none can be made that changes nothing"
        )
    notes = {"imported from": f"{path.name} ({title})"}
    if set(file.networks) - present:
        notes["left out"] = f"networks of widths {sorted(set(file.networks) - present)}"
    record = TechniqueRecord(name=TECHNIQUE, config=config)
    artifact = assemble(
        [record], _narrowed(lacking | given), record_of(base), character=character, notes=notes
    )
    return checked_on(artifact, base, path)


def _refuse_unknown_kind(base: Family, path: Path) -> None:
    """Refuse a base whose files no other tool knows; widths alone may agree by chance."""
    if not base.file_layouts:
        raise ArtifactError(
            f"{path}: is for bases that its tool knows; base '{base.source}' is a {base.name}, "
            "another kind of base; use one of the kind it was made for"
        )


def _blank_for(file: HypernetworkFile, config: dict[str, Any], base: Family) -> Any:
    """Return an empty hypernetwork on `base`, with self-attention only if a width needs it."""
    kind: Any = lookup(Technique, TECHNIQUE)
    given = set(file.networks)
    without = kind(kind.Config.parse(config | {"self_attention": False}), base, None)
    if given and given <= _widths(without):
        return without
    return kind(kind.Config.parse(config | {"self_attention": True}), base, None)


def _widths(blank: Any) -> set[int]:
    """Return the widths of the contexts that a hypernetwork has networks for."""
    return {int(name.partition("/")[0]) for name in blank.networks}


@torch.no_grad()
def _neutral_when_zero(blank: Any, width: int) -> bool:
    """Return whether a network of `blank` adds nothing once all its values are zero."""
    network = blank.networks[f"{width}/k"].to_empty(device=HOST).eval()
    for parameter in network.parameters():
        parameter.zero_()
    return not network(next(network.parameters()).new_ones(1, width)).any()


def _named(file: HypernetworkFile, widths: set[int]) -> dict[str, Tensor]:
    kind = lookup(Technique, TECHNIQUE)
    return {
        kind.tensor_name(f"{width}", part, name.removeprefix("linear.")): value.float()
        for width in widths
        for part, state in zip("kv", file.networks[width], strict=True)
        for name, value in state.items()
    }


def _narrowed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors as float16 where that loses nothing at all, else as they are."""
    halves = {name: value.half() for name, value in tensors.items()}
    same = all(torch.equal(halves[name].float(), value) for name, value in tensors.items())
    return halves if same else tensors


def _check_state(state: State, width: int, config: Mapping[str, Any], path: Path) -> None:
    """Compare names and shapes with what the options ask for, before anything is allocated.

    Raises:
        ArtifactError: a name or a shape differs, or a value is not finite.
    """
    expected: dict[str, tuple[int, ...]] = {}
    for number, kind, inputs, outputs in positions(config):
        out = int(width * outputs)
        shape = (out, int(width * inputs)) if kind == "linear" else (out,)
        if kind == "slope":
            expected[f"linear.{number}.weight"] = (1,)
            continue
        expected[f"linear.{number}.weight"] = shape
        expected[f"linear.{number}.bias"] = (out,)
    found = {name: tuple(value.shape) for name, value in state.items()}
    if found != expected:
        odd = sorted(
            name for name in found.keys() | expected if found.get(name) != expected.get(name)
        )[0]
        raise ArtifactError(
            f"{path}: width {width}: '{odd}' has shape {found.get(odd)}; its options ask for "
            f"{expected.get(odd)}; the file is damaged"
        )
    for name, value in state.items():
        checked(path, f"{width}.{name}", value)
