"""LoRA under the names of the code that a base was published with, as ComfyUI and trainers do."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from personae.artifacts.artifact import Artifact
from personae.artifacts.low_rank import updates_of
from personae.errors import ArtifactError
from personae.formats.format import Format, needed
from personae.formats.lora.fused import fuse
from personae.formats.lora.names import original_names
from personae.formats.lora.parts import split_key
from personae.formats.lora.reader import LoraFile, read_lora
from personae.formats.metadata import CHARACTER
from personae.formats.tensor_file import TensorFile, write_tensors
from personae.models.family import Family

PREFIX = "diffusion_model."
"""Of every name: what ComfyUI calls the denoiser of a base."""


class OriginalLora(Format):
    """One safetensors file; layers that are one matrix in the original code have one update."""

    name = "original_lora"
    title = "LoRA under original names"
    suffix = ".safetensors"
    techniques = ("lora",)
    readers = ("ComfyUI", "personae")
    not_readers = ("diffusers (does not know names of fused layers: use diffusers_lora)",)
    needs_base = True

    @classmethod
    def fits(cls, family: type[Family]) -> bool:
        """Say whether the original names of the family's layers are known."""
        return family.original_names is not None

    def write(self, artifact: Artifact, path: Path, base: Family | None = None) -> Path:
        """Write without alphas: a reader then takes the scale to be 1."""
        base, updates = needed(base), updates_of(artifact)
        layers, tensors, written = base.layers(), dict[str, Tensor](), set[str]()
        for original, parts in original_names(base).items():
            if not any(part in updates for part in parts):
                continue
            rows = [len(layers[part].weight) for part in parts]
            update = fuse([updates.get(part) for part in parts], rows)
            tensors[f"{PREFIX}{original}.lora_A.weight"] = update.down
            tensors[f"{PREFIX}{original}.lora_B.weight"] = update.up
            written.update(parts)
        left = sorted(set(updates) - written)
        if left:
            raise ArtifactError(
                f"'{left[0]}' has no name in files of this kind, which hold the denoiser alone; "
                "export as diffusers_lora"
            )
        metadata = {"format": "pt", CHARACTER: artifact.card.character.model_dump_json()}
        return write_tensors(path, tensors, metadata)

    def recognises(self, path: Path) -> bool:
        """Accept files in which every tensor is a part of an update of the denoiser."""
        header = TensorFile.open(path)
        return (
            header is not None
            and bool(header.shapes)
            and all(name.startswith(PREFIX) and split_key(name) for name in header.shapes)
        )

    def read(self, path: Path, base: Family) -> Artifact:
        """Read original and diffusers' names alike, as ai-toolkit and diffusion-pipe write them."""
        content = TensorFile.opened(path)
        return read_lora(LoraFile(path, content.tensors(), content.metadata, {}), base, self.title)
