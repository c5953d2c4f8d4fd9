"""What all files of hypernetworks share: options, numbering of layers, and checks.

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
from personae.artifacts.card import CharacterRecord, TechniqueRecord
from personae.core.devices import HOST
from personae.core.registry import lookup
from personae.errors import ArtifactError, UsageError
from personae.formats.tensor_file import checked, zeros
from personae.models.family import Family
from personae.techniques.technique import Technique

TECHNIQUE = "hypernetwork"
INITIALISATIONS = {
    "Normal": "normal",
    "XavierUniform": "xavier_uniform",
    "XavierNormal": "xavier_normal",
    "KaimingUniform": "kaiming_uniform",
    "KaimingNormal": "kaiming_normal",
}
# Names A1111 offers and that no picture can depend on alone.
_BATCH = "mixes the pictures of a batch, so that A1111 itself draws by what lies beside a picture"
UNUSABLE = {
    **dict.fromkeys(("softmax", "softmin", "logsoftmax", "softmax2d"), _BATCH),
    "glu": "halves its input, so that the next layer of A1111 does not fit it",
    **dict.fromkeys(("threshold", "multiheadattention"), "A1111 itself cannot make"),
}
MOST_LAYERS = 32
WIDEST = 64  # times the context
INNER_DROPOUT = 0.3  # the share A1111 drops where a file only says that it does

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


def options_of(artifact: Artifact, *, name: str) -> dict[str, Any]:
    """Return A1111's options for `artifact`; all plain values."""
    config = _config_of(artifact)
    structure = [int(size) if size == int(size) else float(size) for size in config.layer_structure]
    dropout = config.dropout_structure or [0.0] * len(structure)
    written = {ours: theirs for theirs, ours in INITIALISATIONS.items()}
    return {
        "step": artifact.card.training.steps,
        "name": name,
        "layer_structure": structure,
        "activation_func": config.activation,
        "is_layer_norm": config.layer_norm,
        # Only how A1111 fills the layers before it reads their values from the file.
        "weight_initialization": written.get(config.initialisation, "Normal"),
        "sd_checkpoint": artifact.card.base.fingerprint[:10],
        "sd_checkpoint_name": artifact.card.base.source,
        "activate_output": config.activate_output,
        "use_dropout": any(dropout),
        "dropout_structure": [float(share) for share in dropout],
        "last_layer_dropout": bool(dropout[-2]),
        "optional_info": None,
    }


def file_of(artifact: Artifact, *, name: str, numbering: dict[int, int] | None = None) -> Any:
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
    config = _config_of(artifact)
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
    if not base.file_layouts:  # widths alone may agree by chance
        raise ArtifactError(
            f"{path}: is for bases that its tool knows; base '{base.source}' is a {base.name}, "
            "another kind of base; use one of the kind it was made for"
        )
    config = _config_from(file.options, path)
    for width, sides in file.networks.items():
        for state in sides:
            _check_state(state, width, config, path)
    kind = lookup(Technique, TECHNIQUE)
    wanted = {}
    for self_attention in (False, True):
        config["self_attention"] = self_attention
        blank = kind(kind.Config.parse(config), base, None)
        states = blank.state_dict()
        wanted = {f"{TECHNIQUE}.{name.replace('/', '.')}": value for name, value in states.items()}
        widths = {int(name.split(".")[2]) for name in wanted}
        if set(file.networks) & widths and not (set(file.networks) - widths):
            break
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


@torch.no_grad()
def _neutral_when_zero(blank: Any, width: int) -> bool:
    """Return whether a network of `blank` adds nothing once all its values are zero."""
    network = blank.networks[f"{width}/k"].to_empty(device=HOST).eval()
    for parameter in network.parameters():
        parameter.zero_()
    return not network(next(network.parameters()).new_ones(1, width)).any()


def _config_of(artifact: Artifact) -> Any:
    record = next(each for each in artifact.card.techniques if each.name == TECHNIQUE)
    return lookup(Technique, TECHNIQUE).Config.parse(record.config)


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


def _config_from(options: Mapping[str, Any], path: Path) -> dict[str, Any]:
    structure = _numbers(options, "layer_structure", path) or [1, 2, 1]
    if not 2 <= len(structure) <= MOST_LAYERS or not all(0 < s <= WIDEST for s in structure):
        raise ArtifactError(
            f"{path}: layer_structure is {structure}; expected 2 to {MOST_LAYERS} numbers in "
            f"(0, {WIDEST}]"
        )
    dropout = _numbers(options, "dropout_structure", path)
    if dropout is None and options.get("use_dropout"):
        inner = [INNER_DROPOUT] * (len(structure) - 3)
        last = [INNER_DROPOUT if options.get("last_layer_dropout") else 0.0]
        dropout = ([0.0, *inner, *last, 0.0]) if len(structure) > 2 else None
    how = options.get("weight_initialization") or "Normal"
    activation = options.get("activation_func") or "linear"
    if isinstance(activation, str) and activation in UNUSABLE:
        raise ArtifactError(
            f"{path}: activation_func is '{activation}', which {UNUSABLE[activation]}; train it "
            "anew with another activation"
        )
    config = {
        "layer_structure": structure,
        "activation": activation,
        "activate_output": bool(options.get("activate_output", True)),
        "layer_norm": bool(options.get("is_layer_norm", False)),
        "dropout_structure": dropout if dropout and any(dropout) else None,
        "initialisation": INITIALISATIONS.get(how, "normal") if isinstance(how, str) else "normal",
        "self_attention": False,
    }
    try:
        lookup(Technique, TECHNIQUE).Config.parse(config)
        if dropout is not None and len(dropout) != len(structure):
            raise UsageError(f"dropout_structure has {len(dropout)} numbers for {len(structure)}")
    except UsageError as error:
        raise ArtifactError(f"{path}: its options cannot be used: {error}") from None
    return config


def _numbers(options: Mapping[str, Any], name: str, path: Path) -> list[float] | None:
    value = options.get(name)
    if value is None:
        return None
    plain = isinstance(value, list | tuple) and len(value) <= MOST_LAYERS
    if not plain or not all(type(each) in (int, float) and abs(each) < 1e6 for each in value):
        raise ArtifactError(f"{path}: {name} is no list of at most {MOST_LAYERS} numbers")
    return list(value)


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
