"""The card of an artifact: what was learnt, from what, on which base."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator
from torch import Tensor

from personae.core.checksum import checksum
from personae.core.config import Config, first_problem
from personae.core.tensor_header import HeaderError, read_tensor_header
from personae.errors import ArtifactError, MissingFileError

FORMAT_VERSION = 2
SEALED_SINCE = 2
"""From this format version on a file states the sha256 of its card's text beside the card."""
SUFFIX = ".safetensors"
CARD, SEAL = "personae", "personae_sha256"  # entries of a file's metadata


class TechniqueRecord(Config):
    """Which technique made a part of the file, and with what settings."""

    name: str
    config: dict[str, Any]


class BaseRecord(Config):
    """The base it was trained on."""

    source: str
    family: str
    fingerprint: str


class CharacterRecord(Config):
    """The character it was trained for."""

    name: str
    class_noun: str
    phrase: str
    fingerprint: str = ""


class TrainingRecord(Config):
    """What the training was and what it cost."""

    steps: int = 0
    batch_size: int = 0
    pictures: int = 0
    seed: int = 0
    seconds: float = 0.0
    peak_bytes: int = 0
    parameters: int = 0
    device: str = ""
    schedule: dict[str, Any] = {}


class Card(Config):
    """All that is known about an artifact, apart from its tensors."""

    format_version: int = FORMAT_VERSION
    techniques: list[TechniqueRecord] = Field(min_length=1)
    base: BaseRecord
    character: CharacterRecord
    training: TrainingRecord = TrainingRecord()
    metrics: dict[str, float] = {}
    notes: dict[str, str] = {}
    content_hash: str = ""

    @field_validator("techniques")
    @classmethod
    def _each_once(cls, records: list[TechniqueRecord]) -> list[TechniqueRecord]:
        names = [record.name for record in records]
        if len(set(names)) < len(names):
            raise ValueError("a technique is listed twice")
        return records

    @property
    def sealed(self) -> bool:
        """Say whether a change of the card would have been found when its file was read."""
        return self.format_version >= SEALED_SINCE

    @property
    def drawing_hash(self) -> str:
        """Return the sha256 of all here that decides a picture: tensors, settings, phrase."""
        techniques = [record.model_dump(mode="json") for record in self.techniques]
        about = [self.content_hash, techniques, self.character.phrase]
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def metadata_of(card: Card) -> dict[str, str]:
    """Return the metadata of a file with this card: the card and its sha256.

    The card holds the hash of the tensors, so that its own covers the whole file.
    """
    text = card.model_copy(update={"format_version": FORMAT_VERSION}).model_dump_json()
    return {CARD: text, SEAL: hashlib.sha256(text.encode()).hexdigest()}


def read_card(path: str | Path) -> Card:
    """Read the card alone, without the tensors.

    Raises:
        ArtifactError: missing, truncated, altered, of a newer format, or not ours.
    """
    metadata = _metadata_in(Path(path))
    if CARD not in metadata:
        raise ArtifactError(f"{path}: was not made by personae; bring it in with `personae import`")
    try:
        values = json.loads(metadata[CARD])
        if values.get("format_version", 0) > FORMAT_VERSION:
            raise ArtifactError(
                f"{path}: has format version {values['format_version']}, this personae reads up to "
                f"{FORMAT_VERSION}; update personae"
            )
        card = Card.model_validate(values)
        seal = hashlib.sha256(metadata[CARD].encode()).hexdigest()
        if (SEAL in metadata or card.sealed) and metadata.get(SEAL) != seal:
            raise ArtifactError(
                f"{path}: its card is not the one it was saved with (sha256 differs); the file was "
                "altered; copy or train it again"
            )
        return card
    except ValidationError as error:
        raise ArtifactError(
            f"{path}: its card is damaged ({first_problem(Card, error)}); copy or train it again"
        ) from None
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise ArtifactError(f"{path}: its card is damaged ({str(error).splitlines()[0]})") from None


def _metadata_in(path: Path) -> dict[str, str]:
    """Return the metadata of a safetensors file.

    Raises:
        ArtifactError: it is missing, truncated, or of another kind.
    """
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file; check the path")
    if not os.access(path, os.R_OK):
        raise ArtifactError(f"{path}: may not be read; change its permissions")
    try:
        return read_tensor_header(path).metadata
    except (HeaderError, OSError) as error:
        if path.suffix != SUFFIX:
            raise ArtifactError(
                f"{path}: is no {SUFFIX} file, as artifacts are; bring a file of another tool in "
                "with `personae import`"
            ) from None
        raise ArtifactError(
            f"{path}: is no whole safetensors file ({error}); copy or download it again"
        ) from None


def stored_name(technique: str, name: str) -> str:
    """Return the tensor name in the file of a technique's own state name."""
    return f"{technique}.{name.replace('/', '.')}"


def content_hash(tensors: dict[str, Tensor]) -> str:
    """Return the sha256 of names, formats, shapes and bytes of `tensors`."""
    return checksum(tensors)
