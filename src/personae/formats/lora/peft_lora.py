"""LoRA as PEFT keeps it: a folder with the adapter's settings and its tensors."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from torch import Tensor

from personae.artifacts.artifact import Artifact
from personae.artifacts.low_rank import LowRankUpdate, updates_of
from personae.core.files import replacing_folder, write_text
from personae.errors import ArtifactError
from personae.formats.format import Format
from personae.formats.lora.parts import split_key
from personae.formats.lora.reader import LoraFile, read_lora
from personae.formats.metadata import CHARACTER
from personae.formats.tensor_file import TensorFile, read_header, write_tensors
from personae.models.family import Family

SETTINGS = "adapter_config.json"
STEM = "adapter_model"
TENSORS = f"{STEM}.safetensors"
LARGEST_SETTINGS = 2**20
PATTERNS = ("rank_pattern", "alpha_pattern")
# Keys of patterns are regular expressions to PEFT; one from a file is never run.
_LAYER = re.compile(r"\^?[\w.]+")


class PeftLora(Format):
    """A folder for `PeftModel.from_pretrained(unet, folder)`.

    One PEFT folder adapts one network: the denoiser lies in the folder itself, every text encoder
    in a folder of its own inside it.
    """

    name = "peft"
    title = "LoRA folder of PEFT"
    suffix = ""
    techniques = ("lora",)
    any_family = True
    readers = ("peft", "personae")
    not_readers = (
        "diffusers' load_lora_weights (ignores the names without an error)",
        "A1111, ComfyUI and InvokeAI",
    )

    def write(self, artifact: Artifact, path: Path, base: Family | None = None) -> Path:
        """Write one adapter for each network that has updates."""
        by_network: dict[str, dict[str, LowRankUpdate]] = {}
        for layer, update in updates_of(artifact).items():
            network, name = layer.split(".", 1)
            by_network.setdefault(network, {})[name] = update
        character = artifact.card.character.model_dump_json()
        with replacing_folder(path) as part:
            for network, updates in by_network.items():
                folder = part if network == "denoiser" else part / network
                tensors: dict[str, Tensor] = {}
                for name, update in updates.items():
                    tensors[f"base_model.model.{name}.lora_A.weight"] = update.down
                    tensors[f"base_model.model.{name}.lora_B.weight"] = update.up
                write_tensors(folder / TENSORS, tensors, {"format": "pt", CHARACTER: character})
                settings = _settings(updates, artifact.card.base.source)
                write_text(folder / SETTINGS, json.dumps(settings, indent=2))
        return path

    def recognises(self, path: Path) -> bool:
        """Accept folders with adapter_config.json, at the top or for a text encoder.

        A file of such a folder is accepted by its name, and read with what lies beside it.
        """
        if path.is_dir():
            return bool(_folders(path))
        if not path.name.startswith(STEM):
            return False
        content = TensorFile.open(path)
        return content is not None and all(
            name.startswith("base_model.") for name in content.shapes
        )

    def read(self, path: Path, base: Family) -> Artifact:
        """Read the adapters of all networks in the folder."""
        tensors: dict[str, Tensor] = {}
        alphas: dict[str, float] = {}
        metadata: dict[str, str] = {}
        for network, folder in _places(path).items():
            settings = _read_settings(folder / SETTINGS)
            content = _content(folder)
            metadata |= content.metadata
            for name, value in content.tensors().items():
                layer = name.removeprefix("base_model.model.")
                renamed = f"{network}.{layer}"
                tensors[renamed] = value
                split = split_key(renamed)
                if split is not None:
                    alphas[split[0]] = _alpha(settings, split[0].split(".", 1)[1], value)
        return read_lora(LoraFile(path, tensors, metadata, alphas), base, self.title)


def _places(path: Path) -> dict[str, Path]:
    """Return {network: folder} of a folder, or of the one file of it that was named.

    Raises:
        ArtifactError: the settings that say the scale do not lie beside the file.
    """
    if path.is_dir():
        return _folders(path)
    if not (path.parent / SETTINGS).is_file():
        raise ArtifactError(
            f"{path}: has no {SETTINGS} beside it, which holds its rank and alpha; fetch that too"
        )
    inside = path.parent.name.startswith("text_encoder")
    return {path.parent.name if inside else "denoiser": path.parent}


def _content(folder: Path) -> TensorFile:
    """Return the tensors of an adapter; PEFT called them .bin before."""
    for name in (TENSORS, f"{STEM}.bin"):
        content = TensorFile.open(folder / name)
        if content is not None:
            return content
    read_header(folder / TENSORS)  # says what is wrong with it
    raise ArtifactError(f"{folder}: has no {TENSORS}; fetch it again")


def _folders(path: Path) -> dict[str, Path]:
    inner = {child.name: child for child in sorted(path.iterdir()) if child.is_dir()}
    places = {"denoiser": path} | {
        name: child for name, child in inner.items() if name.startswith("text_encoder")
    }
    return {name: place for name, place in places.items() if (place / SETTINGS).is_file()}


def _settings(updates: dict[str, LowRankUpdate], source: str) -> dict[str, Any]:
    ranks = {name: update.rank for name, update in updates.items()}
    most, scale = max(ranks.values()), next(iter(updates.values())).scale
    unlike = {name: rank for name, rank in ranks.items() if rank != most}
    return {
        "peft_type": "LORA",
        "base_model_name_or_path": source,
        "task_type": None,
        "inference_mode": True,
        "r": most,
        "lora_alpha": most * scale,
        "rank_pattern": unlike,
        "alpha_pattern": {name: rank * scale for name, rank in unlike.items()},
        "target_modules": sorted(updates),
        "lora_dropout": 0.0,
        "bias": "none",
        "use_rslora": False,
        "use_dora": False,
        "fan_in_fan_out": False,
        "init_lora_weights": True,
    }


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > LARGEST_SETTINGS:
            raise ArtifactError(f"{path}: is too large for settings of PEFT")
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}: cannot be read ({error})") from None
    if not isinstance(settings, dict) or settings.get("peft_type") != "LORA":
        raise ArtifactError(f"{path}: is no LoRA of PEFT; other adapters cannot be read")
    for name in PATTERNS:
        patterns = settings.get(name) or {}
        if not isinstance(patterns, dict):
            raise ArtifactError(f"{path}: {name} is no table of layers; the file is damaged")
        for pattern in patterns:
            if not _LAYER.fullmatch(pattern):
                raise ArtifactError(
                    f"{path}: {name} has the expression '{pattern}'; only names of layers and ends "
                    "of names are read; write the names out"
                )
    return settings


def _of_layer(settings: dict[str, Any], name: str, layer: str) -> Any:
    """Return the value of the first pattern that fits `layer`, as PEFT does, or None.

    A pattern is the end of a layer's name from a dot on, or the whole name after `^`
    (peft 0.21, `get_pattern_key`).
    """
    for pattern, value in (settings.get(name) or {}).items():
        whole = pattern.removeprefix("^")
        if layer == whole or (whole == pattern and layer.endswith(f".{pattern}")):
            return value
    return None


def _alpha(settings: dict[str, Any], layer: str, value: Tensor) -> float:
    """Return the alpha that gives PEFT's scale: alpha / r, or alpha / sqrt(r) with rsLoRA."""
    try:
        own_rank, own_alpha = (_of_layer(settings, name, layer) for name in PATTERNS)
        rank = int(float(settings["r"] if own_rank is None else own_rank))
        alpha = float(settings.get("lora_alpha", rank) if own_alpha is None else own_alpha)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ArtifactError(f"settings of PEFT are damaged ({error})") from None
    return alpha * rank**0.5 if settings.get("use_rslora") and rank > 0 else alpha
