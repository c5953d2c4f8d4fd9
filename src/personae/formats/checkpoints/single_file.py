"""Whole checkpoints in one file under the names of the original code."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from personae.artifacts.artifact import Artifact
from personae.artifacts.bake import Baked
from personae.core.devices import HOST
from personae.core.files import write_text
from personae.core.tensor_header import TensorHeader
from personae.errors import ArtifactError
from personae.formats.checkpoints.a1111_settings import a1111_settings
from personae.formats.checkpoints.difference import difference
from personae.formats.checkpoints.ldm_places import (
    UNET,
    Place,
    autoencoder_weights,
    packed,
    places,
    text_prefixes,
)
from personae.formats.format import Format, needed
from personae.formats.layout import Layout, layout_of
from personae.formats.metadata import CHARACTER, model_spec
from personae.formats.tensor_file import header_or_none, read_header, read_tensors, write_tensors
from personae.models.components import text_network
from personae.models.family import Family

# The number of layers of OpenCLIP ViT-H; diffusers' copy of Stable Diffusion 2 leaves out the last,
# which is not used but expected by readers.
VIT_H_LAYERS = 24
# ln(100), the value OpenCLIP starts from and clips at; readers expect it and do not use it.
LOGIT_SCALE = 4.6055


class SingleFile(Format):
    """One safetensors file in half precision, the base with everything learnt added in."""

    name = "checkpoint"
    title = "Checkpoint in one file (fp16)"
    suffix = ".safetensors"
    techniques = ("dreambooth", "lora")
    readers = (
        "A1111", "ComfyUI", "SwarmUI", "InvokeAI", "kohya sd-scripts",
        "diffusers (from_single_file)", "personae",
    )  # fmt: skip
    not_readers = ("A1111 with Stable Diffusion XL that predicts v",)
    needs_base = True
    dtype: ClassVar[torch.dtype] = torch.float16

    def write(self, artifact: Artifact, path: Path, base: Family | None = None) -> Path:
        """Write weights, marks that readers tell the kind by, and for SD 2 the yaml of A1111."""
        base = needed(base)
        layout = layout_of(base)
        tensors = {
            name: value.to(self.dtype).contiguous() if value.is_floating_point() else value
            for name, value in self._weights(artifact, base, layout)
        }
        metadata = model_spec(artifact, layout, part="", title=path.stem)
        metadata["modelspec.resolution"] = f"{base.resolution}x{base.resolution}"
        metadata[CHARACTER] = artifact.card.character.model_dump_json()
        write_tensors(path, tensors, metadata)
        if layout.kind == "sd2" and layout.v_prediction:
            write_text(path.with_suffix(".yaml"), a1111_settings(base))
        return path

    def _weights(
        self, artifact: Artifact, base: Family, layout: Layout
    ) -> Iterator[tuple[str, Tensor]]:
        baked, where = Baked(artifact, base), places(base, layout)
        for network in base.networks:
            named = ((f"{network}.{name}", value) for name, value in baked.weights(network))
            yield from packed(named, where)
        yield from autoencoder_weights(base)
        yield from _marks(where, base, layout, baked)

    def recognises(self, path: Path) -> bool:
        """Accept files that hold a U-Net under LDM's name."""
        header = header_or_none(path)
        return header is not None and any(name.startswith(UNET) for name in header.shapes)

    def read(self, path: Path, base: Family) -> Artifact:
        """Return the difference of the checkpoint from `base`."""
        header, where = read_header(path), places(base, layout_of(base))

        def fetch(name: str, shape: tuple[int, ...]) -> Tensor | None:
            place = where[name]
            if place.name not in header.shapes:
                return None
            tensor = read_tensors(path, [place.name])[place.name]
            try:
                return place.taken_from(tensor, shape)
            except ValueError:
                raise ArtifactError(
                    f"{path}: '{place.name}' has shape {tuple(tensor.shape)}, which does not fit "
                    f"{shape} of base '{base.source}'; the checkpoint is of another kind"
                ) from None

        formats = {place.format for name, place in header.tensors.items() if name.startswith(UNET)}
        title = f"checkpoint in one file, {' and '.join(sorted(formats))}"
        return difference(
            fetch,
            base,
            path=path,
            title=title,
            metadata=header.metadata,
            left_out=_left_out(path, header, base),
        )


class FullCheckpoint(SingleFile):
    """The same file in full precision."""

    name = "checkpoint_fp32"
    title = "Checkpoint in one file (fp32)"
    dtype = torch.float32

    def recognises(self, path: Path) -> bool:
        """Leave reading to the half-precision format, which reads both."""
        return False


def _left_out(path: Path, header: TensorHeader, base: Family) -> Iterator[str]:
    """Yield what a checkpoint holds besides the networks whose difference is taken."""
    for name, own in autoencoder_weights(base):
        if name in header.tensors:
            tuned = read_tensors(path, [name])[name]
            if tuned.shape != own.shape or not torch.equal(tuned, own.to(HOST, tuned.dtype)):
                yield "its autoencoder, which is not that of the base"
                break
    if any(name.startswith("model_ema.") for name in header.tensors):
        yield "its averaged weights (model_ema)"


def _marks(
    where: Mapping[str, Place], base: Family, layout: Layout, baked: Baked
) -> Iterator[tuple[str, Tensor]]:
    """Yield what readers look for and no network computes with."""
    for i, (prefix, open_clip) in enumerate(text_prefixes(layout)):
        if open_clip:
            yield from _open_clip_marks(i, prefix, where, baked)
        elif layout.kind == "sd1":
            name = f"{prefix}text_model.embeddings.position_ids"
            yield name, torch.arange(base.towers[i].length)[None]
    if layout.kind == "sdxl" and layout.v_prediction:
        yield "v_pred", torch.empty(0)
        if base.scheduler_config.get("rescale_betas_zero_snr"):
            yield "ztsnr", torch.empty(0)


def _open_clip_marks(
    tower: int, prefix: str, where: Mapping[str, Place], baked: Baked
) -> Iterator[tuple[str, Tensor]]:
    network = text_network(tower)
    weights = {f"{network}.{name}": value for name, value in baked.weights(network)}
    yield f"{prefix}logit_scale", torch.tensor(LOGIT_SCALE)
    if not any(name.endswith("text_projection.weight") for name in weights):
        width = baked.base.towers[tower].embedding.embedding_dim
        yield f"{prefix}text_projection", torch.ones(width, width)
    last, beyond = VIT_H_LAYERS - 2, VIT_H_LAYERS - 1
    numbers = {int(found[1]) for name in weights if (found := re.search(r"layers\.(\d+)", name))}
    if max(numbers) == last:
        named = ((name, value) for name, value in weights.items() if f".layers.{last}." in name)
        for name, value in packed(named, where):
            yield name.replace(f".{last}.", f".{beyond}."), value.clone()
