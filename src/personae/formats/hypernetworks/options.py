"""A1111's options of a hypernetwork, and our settings of it.

Options are plain values beside the networks of a file: widths of the layers, activation, dropout.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from personae.artifacts.artifact import Artifact
from personae.core.registry import lookup
from personae.errors import ArtifactError, UsageError
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


def options_of(artifact: Artifact, *, name: str) -> dict[str, Any]:
    """Return A1111's options for `artifact`; all plain values."""
    config = config_of(artifact)
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


def config_from(options: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return our settings for A1111's options.

    Raises:
        ArtifactError: an option is wrong, or nothing can be drawn with it.
    """
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


def config_of(artifact: Artifact) -> Any:
    """Return the settings of a hypernetwork's artifact."""
    record = next(each for each in artifact.card.techniques if each.name == TECHNIQUE)
    return lookup(Technique, TECHNIQUE).Config.parse(record.config)
