"""Word vectors in safetensors: `emb_params` for one text encoder, `clip_l` and `clip_g` for two."""

from __future__ import annotations

from pathlib import Path

from personae.artifacts.artifact import Artifact
from personae.formats.embeddings.parts import (
    ONE_ENCODER,
    OUTPUTS,
    TWO_ENCODERS,
    embedding_artifact,
    placeholder_for,
    placeholder_of,
    vectors_of,
)
from personae.formats.format import Format, needed
from personae.formats.layout import layout_of
from personae.formats.metadata import CHARACTER, model_spec
from personae.formats.tensor_file import header_or_none, read_header, read_tensors, write_tensors
from personae.models.family import Family


class EmbeddingSafetensors(Format):
    """One safetensors file; A1111 and ComfyUI take its file name as the word for prompts."""

    name = "embedding"
    title = "Textual Inversion embedding"
    suffix = ".safetensors"
    techniques = ("textual_inversion",)
    readers = (
        "A1111", "ComfyUI", "SwarmUI", "InvokeAI", "diffusers (with token=)",
        "personae",
    )  # fmt: skip
    not_readers = ("diffusers for SDXL (load clip_l and clip_g one by one)",)
    needs_base = True

    def write(self, artifact: Artifact, path: Path, base: Family | None = None) -> Path:
        """Write float32 vectors; for two text encoders `clip_l` and `clip_g`."""
        vectors = vectors_of(artifact)
        names = ONE_ENCODER[:1] if len(vectors) == 1 else TWO_ENCODERS
        title = placeholder_of(artifact)
        base = needed(base)
        metadata = model_spec(artifact, layout_of(base), part="textual-inversion", title=title)
        metadata[CHARACTER] = artifact.card.character.model_dump_json()
        return write_tensors(path, dict(zip(names, vectors, strict=True)), metadata)

    def recognises(self, path: Path) -> bool:
        """Accept files of these names alone."""
        header = header_or_none(path)
        inputs = {*ONE_ENCODER, *TWO_ENCODERS}
        return (
            header is not None
            and bool(inputs & set(header.shapes))
            and set(header.shapes) <= {*inputs, *OUTPUTS}
        )

    def read(self, path: Path, base: Family) -> Artifact:
        """Read the vectors at the encoders' inputs; those at their outputs are left out."""
        header, tensors = read_header(path), read_tensors(path)
        names = [name for name in (*ONE_ENCODER, *TWO_ENCODERS) if name in tensors]
        notes = {"imported from": f"{path.name} ({self.title})"}
        if set(tensors) - set(names):
            notes["left out"] = "vectors at the outputs of the text encoders"
        return embedding_artifact(
            [tensors[name] for name in names],
            base,
            path=path,
            placeholder=placeholder_for(_word(header.metadata, path)),
            metadata=header.metadata,
            notes=notes,
        )


def _word(metadata: dict[str, str], path: Path) -> str:
    title = metadata.get("modelspec.title", "")
    return title if CHARACTER in metadata and title.startswith("<") else path.stem
