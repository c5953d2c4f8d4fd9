"""Artifacts from tensors that were not trained here: imported, merged, cut down or extracted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from personae.artifacts.artifact import (
    Artifact,
    BaseRecord,
    Card,
    CharacterRecord,
    TechniqueRecord,
    content_hash,
)
from personae.core.devices import HOST
from personae.errors import ArtifactError, UsageError
from personae.models.family import Family


def record_of(base: Family) -> BaseRecord:
    """Return how a card names `base`."""
    return BaseRecord(source=base.source, family=base.name, fingerprint=base.fingerprint)


def assemble(
    techniques: Sequence[TechniqueRecord],
    tensors: Mapping[str, Tensor],
    base: BaseRecord,
    *,
    character: CharacterRecord,
    notes: Mapping[str, str] = {},
) -> Artifact:
    """Return an artifact of `tensors`, kept in the number formats they have.

    Args:
        techniques: which they belong to, with settings.
        tensors: {"<technique>.<name>": value}.
        base: what they are for.
        character: whom they show.
        notes: where they come from and what was lost on the way.
    """
    stored = {name: value.detach().to(HOST).contiguous() for name, value in tensors.items()}
    card = Card(
        techniques=list(techniques),
        base=base,
        character=character,
        notes=dict(notes),
        content_hash=content_hash(stored),
    )
    return Artifact(card, stored)


def checked_on(artifact: Artifact, base: Family, source: object) -> Artifact:
    """Return `artifact` after building it once on `base`, so that a misfit is found now.

    Raises:
        ArtifactError: it does not fit; the message names `source`.
    """
    try:
        artifact.build(base)
    except (ArtifactError, UsageError) as error:
        raise ArtifactError(f"{source}: {error}") from None
    return artifact


def about(artifact: Artifact, **fields: str) -> Artifact:
    """Return `artifact` with fields of its character changed: name, class_noun or phrase."""
    character = artifact.card.character.model_copy(update=fields)
    return Artifact(artifact.card.model_copy(update={"character": character}), artifact.tensors)
