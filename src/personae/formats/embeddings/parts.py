"""What all files of word vectors share: how vectors become an artifact, and the other way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from personae.artifacts.artifact import Artifact, assemble, checked_on, record_of
from personae.artifacts.card import CharacterRecord, TechniqueRecord
from personae.core.registry import lookup
from personae.core.seeds import generator_for
from personae.errors import ArtifactError
from personae.formats.metadata import character_in
from personae.models.family import Family
from personae.techniques.technique import Technique

TECHNIQUE = "textual_inversion"
ONE_ENCODER = ("emb_params", "emp_params")  # the second is OneTrainer's spelling
TWO_ENCODERS = ("clip_l", "clip_g")
OUTPUTS = ("emp_params_out", "emb_params_out", "clip_l_out", "clip_g_out")
MOST_VECTORS = 75
# Placeholders are spliced into prompts wherever they occur; the brackets keep a plain file name
# such as `cat` from being found in other words.
LONGEST_PLACEHOLDER = 100


def vectors_of(artifact: Artifact) -> list[Tensor]:
    """Return the vectors for each text encoder, (n, d), float32."""
    vectors = lookup(Technique, TECHNIQUE).learnt_in(artifact.tensors)
    return [vectors[i].float() for i in sorted(vectors, key=int)]


def placeholder_of(artifact: Artifact) -> str:
    """Return the word that stands for the vectors in prompts."""
    record = next(each for each in artifact.card.techniques if each.name == TECHNIQUE)
    word: str = record.config["placeholder"]
    return word


def placeholder_for(word: str) -> str:
    """Return `word` in angle brackets, unless it has them."""
    word = "".join(word.split())[:LONGEST_PLACEHOLDER].strip("<>") or "character"
    return f"<{word}>"


def embedding_artifact(
    vectors: Sequence[Tensor],
    base: Family,
    *,
    path: Path,
    placeholder: str,
    metadata: Mapping[str, str] = {},
    notes: Mapping[str, str] = {},
) -> Artifact:
    """Return vectors as an artifact for `base`.

    Args:
        vectors: for each text encoder, (n, d) or (d,).
        base: whose text encoders will read them.
        path: for messages and the character's name.
        placeholder: what stands for them in prompts.
        metadata: free text of the file.
        notes: where they come from.

    Raises:
        ArtifactError: the widths are not those of the base, or the counts differ.
    """
    tables = _checked_tables(vectors, base, path)
    kind = lookup(Technique, TECHNIQUE)
    config = {"num_vectors": len(tables[0]), "placeholder": placeholder}
    blank = kind(kind.Config.parse(config), base, generator_for(0)).state_dict()
    tensors = {f"{TECHNIQUE}.{name}": value.clone() for name, value in blank.items()}
    tensors |= {kind.tensor_name(f"{i}"): table.float() for i, table in enumerate(tables)}
    character = character_in(metadata, path)
    character = CharacterRecord(
        name=character.name, class_noun=character.class_noun, phrase=placeholder
    )
    artifact = assemble(
        [TechniqueRecord(name=TECHNIQUE, config=config)],
        tensors,
        record_of(base),
        character=character,
        notes=notes,
    )
    return checked_on(artifact, base, path)


def _checked_tables(vectors: Sequence[Tensor], base: Family, path: Path) -> list[Tensor]:
    """Return a table (n, d) for each text encoder of `base`.

    Raises:
        ArtifactError: they are not as wide as the encoders, unlike in number, or too many.
    """
    tables = [value.unsqueeze(0) if value.dim() == 1 else value for value in vectors]
    shapes = [tuple(table.shape) for table in tables]
    wanted = [tower.embedding.embedding_dim for tower in base.towers]
    are_tables = all(len(shape) == 2 and shape[0] for shape in shapes)
    if not are_tables or wanted != [shape[1] for shape in shapes]:
        raise ArtifactError(
            f"{path}: holds vectors of shape {shapes}; the text encoders of base '{base.source}' "
            f"are {wanted} wide; the file is for another kind of base"
        )
    if len({shape[0] for shape in shapes}) > 1:
        raise ArtifactError(f"{path}: its text encoders have unlike numbers of vectors {shapes}")
    if len(tables[0]) > MOST_VECTORS:
        raise ArtifactError(
            f"{path}: has {len(tables[0])} vectors; a prompt has room for {MOST_VECTORS}"
        )
    return tables
