"""The artifact: what was learnt and its card, in one safetensors file.

Tensors are named `<technique>.<its own name>`. The card is JSON in the file's metadata under
`personae`. A file may hold several techniques that were trained together (pivotal tuning).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from personae.core.config import Config, first_problem
from personae.core.devices import HOST
from personae.core.files import replacing
from personae.core.registry import lookup
from personae.errors import ArtifactError, MissingFileError, UsageError
from personae.models.family import Family
from personae.techniques.technique import Technique

FORMAT_VERSION = 1
SUFFIX = ".safetensors"


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


@dataclass(frozen=True, slots=True)
class Artifact:
    """A trained character.

    Attributes:
        card: what it is.
        tensors: {"<technique>.<name>": value} on the host, as stored.
    """

    card: Card
    tensors: dict[str, Tensor]

    @classmethod
    def of(cls, techniques: Sequence[Technique], base: Family, **card: Any) -> Self:
        """Collect what `techniques` have learnt on `base`, rounded as each stores it."""
        tensors: dict[str, Tensor] = {}
        for technique in techniques:
            for name, value in technique.state_dict().items():
                stored = value.detach().to(HOST, technique.stored_dtype).contiguous()
                tensors[stored_name(technique.name, name)] = stored
        records = [
            TechniqueRecord(name=each.name, config=each.config.model_dump(mode="json"))
            for each in techniques
        ]
        about = BaseRecord(source=base.source, family=base.name, fingerprint=base.fingerprint)
        full = Card(techniques=records, base=about, content_hash=content_hash(tensors), **card)
        return cls(full, tensors)

    @property
    def technique(self) -> str:
        """Return the technique's name, or names joined by + for pivotal combinations."""
        return "+".join(record.name for record in self.card.techniques)

    def build(self, base: Family) -> list[Technique]:
        """Return its techniques, loaded and ready to be injected into `base`.

        Raises:
            ArtifactError: it was made for another base, its card names what is not known here, or
                its tensors do not fit the settings.
        """
        made = self.card.base
        if made.family != base.name or made.fingerprint != base.fingerprint:
            raise ArtifactError(
                f"this {self.technique} of '{self.card.character.name}' was made for base "
                f"'{made.source}' ({made.family}, {made.fingerprint}); the loaded base is "
                f"'{base.source}' ({base.name}, {base.fingerprint}); load that base, or train anew"
            )
        built = [self._build_one(record, base) for record in self.card.techniques]
        known = tuple(f"{technique.name}." for technique in built)
        for name in self.tensors:
            if not name.startswith(known):
                raise ArtifactError(
                    f"tensor '{name}' is unexpected in a file of {self.technique}; the file is "
                    "damaged or was edited"
                )
        return built

    def _build_one(self, record: TechniqueRecord, base: Family) -> Technique:
        try:
            kind = lookup(Technique, record.name)
            config = kind.Config.parse(record.config, where=f"card of {record.name}")
        except UsageError as error:
            raise ArtifactError(
                f"{error} The file was edited, or is of a newer personae; update personae"
            ) from None
        technique = kind(config, base, None).requires_grad_(False).eval()
        state = technique.state_dict()
        mine = {name for name in self.tensors if name.startswith(f"{record.name}.")}
        wanted = {stored_name(record.name, name): name for name in state}
        if mine != set(wanted):
            odd = sorted(mine ^ set(wanted))[0]
            raise ArtifactError(
                f"tensor '{odd}' is {'unexpected' if odd in mine else 'missing'} for these "
                f"{record.name} settings; the file is damaged or was edited"
            )
        for stored, name in wanted.items():
            if self.tensors[stored].shape != state[name].shape:
                raise ArtifactError(
                    f"tensor '{stored}' has shape {tuple(self.tensors[stored].shape)}; expected "
                    f"{tuple(state[name].shape)}; the file is damaged or was edited"
                )
        technique.hold({name: self.tensors[stored] for stored, name in wanted.items()})
        return technique

    def save(self, path: str | Path) -> Path:
        """Write the file atomically and return its path.

        Raises:
            ArtifactError: the tensors hold a value that is not finite.
            PersonaeError: the disk is full or the folder cannot be written.
        """
        path = Path(path)
        for name, tensor in self.tensors.items():
            if not torch.isfinite(tensor).all():
                raise ArtifactError(f"tensor '{name}' is not finite; the training broke")
        with replacing(path) as temporary:
            save_file(self.tensors, temporary, {"personae": self.card.model_dump_json()})
        return path

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file and check that it is whole and unaltered.

        Raises:
            ArtifactError: missing, truncated, altered, of a newer format, or not ours.
        """
        card, tensors = read_card(path), {}
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - safe_open is no dict
                tensors[name] = file.get_tensor(name)
        if content_hash(tensors) != card.content_hash:
            raise ArtifactError(
                f"{path}: its tensors do not match its card (sha256 differs); the file was altered"
            )
        return cls(card, tensors)


def read_card(path: str | Path) -> Card:
    """Read the card alone, without the tensors.

    Raises:
        ArtifactError: missing, truncated, of a newer format, or not ours.
    """
    if not Path(path).is_file():
        raise MissingFileError(f"{path}: no such file; check the path")
    if not os.access(path, os.R_OK):
        raise ArtifactError(f"{path}: may not be read; change its permissions")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        if Path(path).suffix != SUFFIX:
            raise ArtifactError(
                f"{path}: is no {SUFFIX} file, as artifacts are; bring a file of another tool in "
                "with `personae import`"
            ) from None
        raise ArtifactError(
            f"{path}: is no whole safetensors file ({error}); copy or download it again"
        ) from None
    if "personae" not in metadata:
        raise ArtifactError(f"{path}: was not made by personae; bring it in with `personae import`")
    try:
        values = json.loads(metadata["personae"])
        if values.get("format_version", 0) > FORMAT_VERSION:
            raise ArtifactError(
                f"{path}: has format version {values['format_version']}, this personae reads up to "
                f"{FORMAT_VERSION}; update personae"
            )
        return Card.model_validate(values)
    except ValidationError as error:
        raise ArtifactError(
            f"{path}: its card is damaged ({first_problem(Card, error)}); copy or train it again"
        ) from None
    except (json.JSONDecodeError, AttributeError, TypeError) as error:
        raise ArtifactError(f"{path}: its card is damaged ({str(error).splitlines()[0]})") from None


def stored_name(technique: str, name: str) -> str:
    """Return the tensor name in the file of a technique's own state name."""
    return f"{technique}.{name.replace('/', '.')}"


def content_hash(tensors: dict[str, Tensor]) -> str:
    """Return the sha256 of names, formats, shapes and bytes of `tensors`."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
