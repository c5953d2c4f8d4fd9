"""Hypernetworks as A1111 trains them: a pickle with a pair of networks for each width."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from personae.artifacts.artifact import Artifact
from personae.artifacts.card import CharacterRecord
from personae.errors import ArtifactError, UnsupportedError
from personae.formats.format import Format
from personae.formats.hypernetworks.parts import (
    HypernetworkFile,
    State,
    file_of,
    hypernetwork_artifact,
    without_dropout,
)
from personae.formats.safe_pickle import load_pickle, save_pickle
from personae.models.family import Family

# All that ComfyUI 0.3.64 knows; with any other name it applies nothing and does not say so.
COMFY_ACTIVATIONS = (
    "linear", "relu", "leakyrelu", "elu", "swish", "tanh", "sigmoid", "softsign", "mish",
)  # fmt: skip
WIDEST_CONTEXT = 8192
MOST_WIDTHS = 16
_NAME = re.compile(r"linear(?:\.(\d{1,3})|(1|2))\.(weight|bias)")


class A1111Hypernetwork(Format):
    """A `.pt` file with every option, as for training on in A1111."""

    name = "a1111_hypernetwork"
    title = "Hypernetwork of A1111"
    suffix = ".pt"
    techniques = ("hypernetwork",)
    readers: ClassVar[tuple[str, ...]] = ("A1111", "personae")
    not_readers: ClassVar[tuple[str, ...]] = (
        "ComfyUI (leaves Dropout on while drawing: export as comfy_hypernetwork)",
        "InvokeAI, diffusers, OneTrainer and kohya's trainer (no hypernetworks)",
    )

    def write(self, artifact: Artifact, path: Path, base: Family | None = None) -> Path:
        """Write float32 tensors and A1111's options in a minimal zip."""
        return write_pickle(file_of(artifact, name=path.stem), path)

    def recognises(self, path: Path) -> bool:
        """Accept `.pt` files with a pair of dictionaries under a whole number."""
        if path.suffix != ".pt" or not path.is_file():
            return False
        try:
            content = load_pickle(path)
        except ArtifactError:
            return False
        return isinstance(content, dict) and any(type(key) is int for key in content)

    def read(self, path: Path, base: Family) -> Artifact:
        """Read every option set and the older names `linear1`, `linear2`."""
        content = load_pickle(path)
        networks: dict[int, tuple[State, State]] = {}
        options: dict[str, Any] = {}
        for key, value in content.items():
            if type(key) is int:
                networks[key] = _pair(key, value, path)
            elif isinstance(key, str):
                options[key] = value
        if len(networks) > MOST_WIDTHS:
            raise ArtifactError(f"{path}: has networks for {len(networks)} widths")
        character = CharacterRecord(name=path.stem, class_noun="", phrase=path.stem)
        return hypernetwork_artifact(
            HypernetworkFile(networks, options),
            base,
            path=path,
            title=self.title,
            character=character,
        )


class ComfyHypernetwork(A1111Hypernetwork):
    """The same file for drawing alone: no Dropout, layers numbered anew.

    ComfyUI leaves Dropout on while drawing. It also applies the activation to the last layer where
    A1111 does not, if there are layer norms; such networks are refused.
    """

    name = "comfy_hypernetwork"
    title = "Hypernetwork for ComfyUI"
    readers = ("ComfyUI", "A1111", "personae")
    not_readers = ("InvokeAI and diffusers (no hypernetworks)",)

    def write(self, artifact: Artifact, path: Path, base: Family | None = None) -> Path:
        """Write a copy that draws the same and cannot be trained on as it was."""
        file = file_of(artifact, name=path.stem, numbering=without_dropout(artifact))
        options = dict(file.options)
        if options["activation_func"] == "hardswish":
            options["activation_func"] = "swish"  # one function under two names
        if options["activation_func"] not in COMFY_ACTIVATIONS:
            raise UnsupportedError(
                f"ComfyUI does not know the activation {options['activation_func']} and would "
                "apply nothing; export it as a1111_hypernetwork"
            )
        if (
            options["is_layer_norm"]
            and options["activation_func"] != "linear"
            and not options["activate_output"]
        ):
            raise UnsupportedError(
                "ComfyUI would draw something else with this hypernetwork (layer norm without an "
                "activated output); export it as a1111_hypernetwork"
            )
        zeros = [0.0] * len(options["layer_structure"])
        options |= {"use_dropout": False, "last_layer_dropout": False, "dropout_structure": zeros}
        return write_pickle(HypernetworkFile(file.networks, options), path)

    def recognises(self, path: Path) -> bool:
        """Leave reading to A1111's format, of which this is a special case."""
        return False


def write_pickle(file: HypernetworkFile, path: Path) -> Path:
    """Write A1111's dictionary; the layers keep their order, which ComfyUI goes by."""
    networks = {
        width: tuple({name: value.clone() for name, value in _ordered(state)} for state in pair)
        for width, pair in sorted(file.networks.items())
    }
    return save_pickle({**networks, **file.options}, path)


def _ordered(state: State) -> list[tuple[str, Tensor]]:
    return sorted(state.items(), key=lambda item: (int(item[0].split(".")[1]), item[0][-1] != "t"))


def _pair(width: int, value: Any, path: Path) -> tuple[State, State]:
    if not 1 <= width <= WIDEST_CONTEXT:
        raise ArtifactError(f"{path}: has networks for width {width}, which no model has")
    pair = isinstance(value, list | tuple) and len(value) == 2
    if not pair or not all(isinstance(state, Mapping) for state in value):
        raise ArtifactError(f"{path}: width {width} holds no pair of networks")
    first, second = (_renamed(state, width, path) for state in value)
    return first, second


def _renamed(state: Mapping[Any, Any], width: int, path: Path) -> State:
    renamed: State = {}
    for name, value in state.items():
        found = _NAME.fullmatch(name) if isinstance(name, str) else None
        if found is None or not isinstance(value, Tensor):
            raise ArtifactError(f"{path}: width {width} holds '{name}', which is no layer")
        number = found[1] if found[1] is not None else str(int(found[2]) - 1)
        renamed[f"linear.{number}.{found[3]}"] = value.detach()
    return renamed
