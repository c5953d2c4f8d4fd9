"""LoRA as diffusers keeps it: names with dots, `lora_A` and `lora_B`, the scale folded in."""

from __future__ import annotations

import json
from pathlib import Path

from torch import Tensor

from personae.artifacts.artifact import Artifact
from personae.artifacts.low_rank import updates_of
from personae.core.registry import lookup
from personae.errors import ArtifactError
from personae.formats.format import Format
from personae.formats.lora.names import diffusers_name
from personae.formats.lora.parts import split_key
from personae.formats.lora.reader import LoraFile, read_lora
from personae.formats.metadata import CHARACTER
from personae.formats.tensor_file import TensorFile, write_tensors
from personae.models.family import Family

ADAPTER_METADATA = "lora_adapter_metadata"
FILE_NAME = "pytorch_lora_weights.safetensors"


class DiffusersLora(Format):
    """One safetensors file for `load_lora_weights`; all three generations of names are read."""

    name = "diffusers_lora"
    title = "LoRA for diffusers"
    suffix = ".safetensors"
    techniques = ("lora",)
    any_family = True
    readers = ("diffusers", "personae")
    not_readers = (
        "A1111 and InvokeAI (no such names for Stable Diffusion)",
        "ComfyUI (leaves out the attention of Stable Diffusion 1 and XL)",
    )

    def write(self, artifact: Artifact, path: Path, base: Family | None = None) -> Path:
        """Write without alphas: a reader then takes the scale to be 1."""
        tensors: dict[str, Tensor] = {}
        family = lookup(Family, artifact.card.base.family)
        for layer, update in updates_of(artifact).items():
            name = diffusers_name(layer, family)
            tensors[f"{name}.lora_A.weight"] = update.down
            tensors[f"{name}.lora_B.weight"] = update.folded().up
        metadata = {"format": "pt", CHARACTER: artifact.card.character.model_dump_json()}
        return write_tensors(path, tensors, metadata)

    def recognises(self, path: Path) -> bool:
        """Accept files in which every tensor is a part of an update under a dotted name."""
        header = TensorFile.open(path)
        if header is None or not header.shapes:
            return False
        parts = [split_key(name) for name in header.shapes]
        return all(part is not None and "." in part[0] for part in parts) and not any(
            name.startswith(("base_model.", "diffusion_model.")) for name in header.shapes
        )

    def read(self, path: Path, base: Family) -> Artifact:
        """Read names of the attention-processor, `lora.down` and `lora_A` generations."""
        content = TensorFile.opened(path)
        tensors = content.tensors()
        file = LoraFile(path, tensors, content.metadata, _alphas(path, tensors, content.metadata))
        return read_lora(file, base, self.title)


def _alphas(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> dict[str, float]:
    """Return {layer's name in the file: alpha} from the PEFT settings that diffusers adds."""
    if ADAPTER_METADATA not in metadata:
        return {}
    try:
        settings = json.loads(metadata[ADAPTER_METADATA])
        found: dict[str, float] = {}
        for name in tensors:
            stem, _ = split_key(name) or (name, "")
            network, layer = stem.split(".", 1)
            patterns = settings.get(f"{network}.alpha_pattern") or {}
            alpha = patterns.get(layer, settings.get(f"{network}.lora_alpha"))
            if alpha is not None:
                found[stem] = float(alpha)
        return found
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise ArtifactError(f"{path}: its {ADAPTER_METADATA} is damaged") from None
