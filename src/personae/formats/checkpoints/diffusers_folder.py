"""Whole checkpoints as diffusers keeps them: a folder with one subfolder for each component."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

from personae.artifacts.artifact import Artifact
from personae.artifacts.bake import Baked
from personae.core.files import replacing_folder
from personae.core.registry import discover
from personae.errors import ArtifactError
from personae.formats.checkpoints.components import component_weights
from personae.formats.checkpoints.difference import difference
from personae.formats.format import Format, needed
from personae.formats.layout import Layout, layout_of
from personae.formats.ldm_names import with_text_model
from personae.formats.metadata import CHARACTER
from personae.formats.tensor_file import write_tensors
from personae.models.components import text_component, text_network
from personae.models.family import Family

INDEX = "model_index.json"
DIFFUSERS_WEIGHTS = "diffusion_pytorch_model"
TRANSFORMERS_WEIGHTS = "model"


class DiffusersFolder(Format):
    """A folder for `from_pretrained`, the base with everything learnt added in."""

    name = "diffusers_folder"
    title = "Checkpoint folder of diffusers"
    suffix = ""
    techniques = ("dreambooth", "lora")
    readers = ("diffusers", "InvokeAI", "kohya sd-scripts", "personae")
    not_readers = ("A1111, ComfyUI and SwarmUI (export as checkpoint)",)
    needs_base = True

    def write(self, artifact: Artifact, path: Path, base: Family | None = None) -> Path:
        """Write all components in the number format of `base`.

        Raises:
            ArtifactError: the folder is there already.
        """
        if path.exists():
            raise ArtifactError(f"{path}: is there already; choose another folder")
        base = needed(base)
        layout, baked = layout_of(base), Baked(artifact, base)
        with replacing_folder(path) as part:
            about = {CHARACTER: artifact.card.character.model_dump_json()}
            for name, network in base.components.denoiser.items():
                _write_network(part / name, network, dict(baked.weights("denoiser")), about)
            for name, network in base.components.autoencoder.items():
                _write_network(part / name, network, network.state_dict(), {})
            for i, tower in enumerate(base.towers):
                weights = dict(baked.weights(text_network(i)))
                _write_text_encoder(part / text_component(i), tower.encoder, weights)
                _write_tokenizer(part / _tokenizer(i), tower.tokenizer)
            _write_json(part / "scheduler" / "scheduler_config.json", _scheduler(base))
            _write_json(part / INDEX, _index(base, layout))
        return path

    def recognises(self, path: Path) -> bool:
        """Accept folders with model_index.json and the denoiser of a known family."""
        parts = {family.denoiser_component for family in discover(Family).values()}
        return (path / INDEX).is_file() and any((path / part).is_dir() for part in parts)

    def read(self, path: Path, base: Family) -> Artifact:
        """Return the difference of the checkpoint from `base`."""
        denoiser = path / base.denoiser_component
        weights = {"denoiser": component_weights(denoiser, DIFFUSERS_WEIGHTS)}
        for i in range(len(base.towers)):
            folder = path / text_component(i)
            weights[text_network(i)] = component_weights(folder, TRANSFORMERS_WEIGHTS)

        def fetch(name: str, shape: tuple[int, ...]) -> Tensor | None:
            network, weight = name.split(".", 1)
            mine = weights[network]
            # transformers dropped the level text_model in one release; both forms are about
            spellings = [weight, with_text_model(weight), weight.removeprefix("text_model.")]
            here = next((each for each in spellings if each in mine.shapes), None)
            if here is None:
                return None
            if mine.shapes[here] != shape:
                raise ArtifactError(
                    f"{mine.files[here]}: '{here}' has shape {mine.shapes[here]}; base "
                    f"'{base.source}' has {shape}; the checkpoint is of another kind"
                )
            return mine.read(here)

        metadata = weights["denoiser"].metadata
        return difference(fetch, base, path=path, title=self.title, metadata=metadata)


def _write_network(
    folder: Path, network: Any, weights: Mapping[str, Tensor], about: Mapping[str, str]
) -> None:
    folder.mkdir(parents=True)
    network.save_config(folder)
    metadata = {"format": "pt", **about}  # diffusers asks for the first
    write_tensors(folder / f"{DIFFUSERS_WEIGHTS}.safetensors", weights, metadata)


def _write_text_encoder(folder: Path, encoder: Any, weights: Mapping[str, Tensor]) -> None:
    folder.mkdir(parents=True)
    config = encoder.config.to_dict() | {"architectures": [type(encoder).__name__]}
    _write_json(folder / "config.json", config)
    named = {with_text_model(name): value for name, value in weights.items()}
    write_tensors(folder / f"{TRANSFORMERS_WEIGHTS}.safetensors", named, {"format": "pt"})


def _write_tokenizer(folder: Path, tokenizer: Any) -> None:
    folder.mkdir(parents=True)
    tokenizer.save_pretrained(folder)
    # Readers from before transformers 5 look for vocab.json and merges.txt.
    tokenizer.backend_tokenizer.model.save(str(folder))


def _tokenizer(index: int) -> str:
    return text_component(index).replace("text_encoder", "tokenizer")


def _scheduler(base: Family) -> dict[str, Any]:
    public = {k: v for k, v in base.scheduler_config.items() if not k.startswith("_")}
    kind = base.scheduler_config.get("_class_name", "DDIMScheduler")
    return {"_class_name": kind, "_diffusers_version": version("diffusers"), **public}


def _index(base: Family, layout: Layout) -> dict[str, Any]:
    xl = layout.kind == "sdxl"
    index: dict[str, Any] = {
        "_class_name": "StableDiffusionXLPipeline" if xl else "StableDiffusionPipeline",
        "_diffusers_version": version("diffusers"),
        "scheduler": ["diffusers", _scheduler(base)["_class_name"]],
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
    }
    parts = base.components
    for name, network in (parts.denoiser | parts.autoencoder).items():
        index[name] = ["diffusers", type(network).__name__]
    for i, tower in enumerate(base.towers):
        index[text_component(i)] = ["transformers", type(tower.encoder).__name__]
        index[_tokenizer(i)] = ["transformers", "CLIPTokenizer"]
    if xl:
        return index | {"force_zeros_for_empty_prompt": True}
    return index | {"safety_checker": [None, None], "requires_safety_checker": False}


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(values, indent=2, sort_keys=True, default=str)
    path.write_text(f"{text}\n", encoding="utf-8")
