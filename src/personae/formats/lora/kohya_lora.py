"""LoRA as kohya's scripts and A1111 keep it: the one form that every tool opens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from personae.artifacts.artifact import Artifact, assemble
from personae.artifacts.low_rank import LowRankUpdate, times, updates_of
from personae.errors import ArtifactError
from personae.formats.embeddings.parts import TWO_ENCODERS, embedding_artifact, placeholder_for
from personae.formats.format import Format, needed
from personae.formats.layout import Layout, layout_of
from personae.formats.lora.names import DENOISER_PREFIXES, kohya_name
from personae.formats.lora.reader import LoraFile, read_lora, require_known
from personae.formats.metadata import kohya_metadata
from personae.formats.tensor_file import TensorFile, write_tensors
from personae.models.components import text_network
from personae.models.family import Family

PREFIXES = (*DENOISER_PREFIXES, "lora_te_", "lora_te1_", "lora_te2_")
BUNDLED = "bundle_emb."


class KohyaLora(Format):
    """One safetensors file, names with underscores, one alpha for the whole file.

    diffusers 0.42 applies wrong factors where alphas differ between layers, so that every scale
    but the common one is folded into `lora_up`.
    """

    name = "kohya"
    title = "LoRA for A1111, ComfyUI and kohya"
    suffix = ".safetensors"
    techniques = ("lora",)
    readers = (
        "A1111", "ComfyUI", "SwarmUI", "InvokeAI", "kohya sd-scripts",
        "diffusers", "personae",
    )  # fmt: skip
    not_readers = ()
    needs_base = True
    has_sidecar = True

    def write(self, artifact: Artifact, path: Path, base: Family | None = None) -> Path:
        """Write names, alphas and the metadata that readers act on."""
        base = needed(base)
        layout = layout_of(base)
        updates = whole_attention(updates_of(artifact), base, layout)
        rank = max(update.rank for update in updates.values())
        alpha = next(iter(updates.values())).scale * rank
        tensors: dict[str, Tensor] = {}
        for layer, update in updates.items():
            name = kohya_name(layer, base, layout)
            # scale = alpha / rank of the layer holds for the common alpha only at full rank
            up = times(update.up, update.rank / rank)
            tensors[f"{name}.lora_down.weight"] = update.down
            tensors[f"{name}.lora_up.weight"] = up
            tensors[f"{name}.alpha"] = torch.tensor(alpha, dtype=torch.float32)
        metadata = kohya_metadata(artifact, layout, stem=path.stem, rank=rank, alpha=alpha)
        return write_tensors(path, tensors, metadata)

    def recognises(self, path: Path) -> bool:
        """Accept files whose tensors all begin with kohya's prefixes."""
        header = TensorFile.open(path)
        if header is None:
            return False
        names = [name for name in header.shapes if not name.startswith(BUNDLED)]
        return bool(names) and all(name.startswith(PREFIXES) for name in names)

    def read(self, path: Path, base: Family) -> Artifact:
        """Read LoRA, LoCon, LoHa, LoKr, DoRA and full differences under kohya's names."""
        header = TensorFile.opened(path)
        names = [name for name in header.shapes if not name.startswith(BUNDLED)]
        require_known(names, path)
        file = LoraFile(path, header.tensors(names), header.metadata, {})
        lora = read_lora(file, base, self.title)
        bundled = [name for name in header.shapes if name.startswith(BUNDLED)]
        if not bundled:
            return lora
        return _joined(lora, _embedding(path, header.tensors(bundled), base))


def _embedding(path: Path, tensors: dict[str, Tensor], base: Family) -> Artifact:
    """Return the one embedding that lies in the file, for pivotal tuning."""
    words = {name.removeprefix(BUNDLED).split(".", 1)[0] for name in tensors}
    if len(words) != 1:
        raise ArtifactError(f"{path}: bundles {len(words)} embeddings; one can be read")
    (word,) = words
    by_part = {name.rsplit(".", 1)[1]: value for name, value in sorted(tensors.items())}
    order = [by_part.pop(part) for part in TWO_ENCODERS if part in by_part]
    return embedding_artifact(
        order or list(by_part.values()), base, path=path, placeholder=placeholder_for(word)
    )


def _joined(lora: Artifact, embedding: Artifact) -> Artifact:
    return assemble(
        [*lora.card.techniques, *embedding.card.techniques],
        lora.tensors | embedding.tensors,
        lora.card.base,
        character=embedding.card.character,
        notes=lora.card.notes,
    )


def whole_attention(
    updates: Mapping[str, LowRankUpdate], base: Family, layout: Layout
) -> dict[str, LowRankUpdate]:
    """Return updates in which no attention of an OpenCLIP text encoder is there by half.

    A1111 keeps query, key and value of those encoders in one weight and applies an update only if
    all four projections have one; the missing ones become zero.
    """
    whole = dict(updates)
    fused = {"sd1": None, "sd2": text_network(0), "sdxl": text_network(1)}[layout.kind]
    layers = base.layers()
    for layer, update in updates.items():
        if layer.split(".", 1)[0] != fused or ".self_attn." not in layer:
            continue
        attention = layer.rsplit(".", 1)[0]
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            name = f"{attention}.{part}"
            if name in layers and name not in whole:
                out, inputs = layers[name].weight.shape
                rank, dtype = update.rank, update.up.dtype
                down, up = torch.zeros(rank, inputs), torch.zeros(out, rank)
                whole[name] = LowRankUpdate(down.to(dtype), up.to(dtype), update.scale)
    return whole
