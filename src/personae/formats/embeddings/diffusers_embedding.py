"""Word vectors as diffusers keeps them: `learned_embeds`, the placeholder is the tensor's name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from personae.artifacts.artifact import Artifact
from personae.errors import ArtifactError, UnsupportedError
from personae.formats.embeddings.parts import (
    ONE_ENCODER,
    OUTPUTS,
    TWO_ENCODERS,
    embedding_artifact,
    placeholder_for,
    placeholder_of,
    vectors_of,
)
from personae.formats.format import Format
from personae.formats.metadata import CHARACTER
from personae.formats.safe_pickle import load_pickle, tensors_in
from personae.formats.tensor_file import (
    checked,
    header_or_none,
    read_header,
    read_tensors,
    write_tensors,
)
from personae.models.family import Family

PICKLES = (".bin",)


class DiffusersEmbedding(Format):
    """One safetensors file for `load_textual_inversion`."""

    name = "diffusers_embedding"
    title = "Textual Inversion for diffusers"
    suffix = ".safetensors"
    techniques = ("textual_inversion",)
    readers = ("diffusers", "A1111", "ComfyUI", "SwarmUI", "personae")
    not_readers = ("InvokeAI (refuses several vectors in this form)",)

    def write(self, artifact: Artifact, path: Path, base: Family | None = None) -> Path:
        """Write {placeholder: vectors}.

        Raises:
            UnsupportedError: the base has two text encoders, which diffusers keeps apart.
        """
        vectors = vectors_of(artifact)
        if len(vectors) != 1:
            raise UnsupportedError(
                "diffusers has no file for the vectors of two text encoders; export as 'embedding' "
                "and load clip_l and clip_g one by one"
            )
        metadata = {"format": "pt", CHARACTER: artifact.card.character.model_dump_json()}
        return write_tensors(path, {placeholder_of(artifact): vectors[0]}, metadata)

    def recognises(self, path: Path) -> bool:
        """Accept safetensors of one table under a name without dots, and `.bin` files."""
        if path.suffix in PICKLES:
            tensors = tensors_in(path)
            return tensors is not None and len(tensors) == 1
        header = header_or_none(path)
        if header is None or len(header.shapes) != 1:
            return False
        ((name, shape),) = header.shapes.items()
        known = {*ONE_ENCODER, *TWO_ENCODERS, *OUTPUTS}
        plain = "." not in name and name not in known
        return len(shape) in (1, 2) and (name.startswith("<") or plain)

    def read(self, path: Path, base: Family) -> Artifact:
        """Read one placeholder with one or several vectors."""
        metadata: Mapping[str, str] = {}
        if path.suffix in PICKLES:
            name, value = _only(path, load_pickle(path))
        else:
            metadata = read_header(path).metadata
            name, value = _only(path, read_tensors(path))
        return embedding_artifact(
            [value],
            base,
            path=path,
            placeholder=name if name.startswith("<") else placeholder_for(name),
            metadata=metadata,
            notes={"imported from": f"{path.name} ({self.title})"},
        )


def _only(path: Path, content: object) -> tuple[str, Tensor]:
    if not isinstance(content, dict) or len(content) != 1:
        raise ArtifactError(f"{path}: expected one placeholder with its vectors")
    ((name, value),) = content.items()
    if not isinstance(name, str) or not isinstance(value, Tensor):
        raise ArtifactError(f"{path}: expected one placeholder with its vectors")
    return name, checked(path, name, value.detach())
