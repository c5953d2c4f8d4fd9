"""Word vectors as A1111 trains them: a pickle with `string_to_param`, or the same in a picture."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from personae.artifacts.artifact import Artifact
from personae.errors import ArtifactError, UnsupportedError
from personae.formats.embeddings.a1111_picture import embedding_in
from personae.formats.embeddings.parts import (
    embedding_artifact,
    placeholder_for,
    placeholder_of,
    vectors_of,
)
from personae.formats.format import Format
from personae.formats.safe_pickle import load_pickle, save_pickle
from personae.formats.tensor_file import checked
from personae.models.family import Family

# The id of `*` in CLIP's vocabulary, which A1111 writes and no reader uses.
STAR = 265


class A1111Embedding(Format):
    """A `.pt` file; A1111 takes its file name as the word for prompts."""

    name = "a1111_embedding"
    title = "Textual Inversion of A1111"
    suffix = ".pt"
    techniques = ("textual_inversion",)
    readers = ("A1111", "ComfyUI", "InvokeAI", "diffusers", "personae")
    not_readers = ("SwarmUI",)

    def write(self, artifact: Artifact, path: Path, base: Family | None = None) -> Path:
        """Write a plain tensor in a minimal zip.

        Raises:
            UnsupportedError: the base has two text encoders.
        """
        vectors = vectors_of(artifact)
        if len(vectors) != 1:
            raise UnsupportedError(
                "A1111 keeps the vectors of two text encoders in safetensors; export as 'embedding'"
            )
        content = {
            "string_to_token": {"*": STAR},
            "string_to_param": {"*": vectors[0].clone()},
            "name": placeholder_of(artifact),
            "step": artifact.card.training.steps,
            "sd_checkpoint": artifact.card.base.fingerprint[:10],
            "sd_checkpoint_name": artifact.card.base.source,
        }
        return save_pickle(content, path)

    def recognises(self, path: Path) -> bool:
        """Accept `.pt` files and pictures that hold `string_to_param`."""
        if embedding_in(path) is not None:
            return True
        if path.suffix != ".pt" or not path.is_file():
            return False
        try:
            content = load_pickle(path)
        except ArtifactError:
            return False
        return isinstance(content, dict) and "string_to_param" in content

    def read(self, path: Path, base: Family) -> Artifact:
        """Read the vectors of the file's one word."""
        pictured = embedding_in(path)
        content = load_pickle(path) if pictured is None else pictured
        table = content.get("string_to_param")
        if not isinstance(table, dict) or len(table) != 1:
            raise ArtifactError(f"{path}: expected one word with its vectors in string_to_param")
        (value,) = table.values()
        if not isinstance(value, Tensor):
            raise ArtifactError(f"{path}: expected a tensor in string_to_param")
        name = content.get("name")
        # A1111 goes by the name in a picture, and by the file's name otherwise
        stated = path.stem
        if isinstance(name, str) and (pictured is not None or name.startswith("<")):
            stated = name
        return embedding_artifact(
            [checked(path, "string_to_param", value.detach())],
            base,
            path=path,
            placeholder=placeholder_for(stated),
            notes={"imported from": f"{path.name} ({self.title})"},
        )
