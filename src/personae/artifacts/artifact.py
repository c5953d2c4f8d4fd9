"""The artifact: what was learnt and its card, in one safetensors file.

Tensors are named `<technique>.<its own name>`. The card is JSON in the file's metadata under
`personae`. A file may hold several techniques that were trained together (pivotal tuning).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from personae.artifacts.card import (
    SUFFIX,
    BaseRecord,
    Card,
    CharacterRecord,
    TechniqueRecord,
    content_hash,
    metadata_of,
    read_card,
    stored_name,
)
from personae.core.devices import HOST
from personae.core.files import replacing, safe_name
from personae.core.registry import lookup
from personae.errors import ArtifactError, UsageError
from personae.models.family import Family
from personae.techniques.technique import Technique


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

    def file_name(self, stem: str) -> str:
        """Return what its file is called: `mira.lora.safetensors`."""
        return f"{safe_name(stem)}.{self.technique}{SUFFIX}"

    def check_base(self, base: Family) -> None:
        """Refuse a base that it was not made for.

        Raises:
            ArtifactError: `base` is another one.
        """
        made = self.card.base
        if made.family != base.name or made.fingerprint != base.fingerprint:
            raise ArtifactError(
                f"this {self.technique} of '{self.card.character.name}' was made for base "
                f"'{made.source}' ({made.family}, {made.fingerprint}); the loaded base is "
                f"'{base.source}' ({base.name}, {base.fingerprint}); load that base, or train anew"
            )

    def build(self, base: Family) -> list[Technique]:
        """Return its techniques, loaded and ready to be injected into `base`.

        Raises:
            ArtifactError: it was made for another base, its card names what is not known here, or
                its tensors do not fit the settings.
        """
        self.check_base(base)
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
                f"{str(error).rstrip('.')}; the file was edited, or is of a newer personae; update "
                "personae"
            ) from None
        try:
            technique = kind(config, base, None).requires_grad_(False).eval()
        except UsageError as error:
            raise ArtifactError(f"{error}; the file was edited; copy or train it again") from None
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
            if fault := fault_of(tensor):
                raise ArtifactError(f"tensor '{name}' {fault}; the training broke")
        with replacing(path) as temporary:
            save_file(self.tensors, temporary, metadata_of(self.card))
        return path

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file and check that it is whole and unaltered.

        Raises:
            ArtifactError: missing, truncated, altered, of a newer format, or not ours; or a
                tensor is not of finite floating values.
        """
        card, tensors = read_card(path), {}
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - safe_open is no dict
                tensors[name] = file.get_tensor(name)
                if fault := fault_of(tensors[name]):
                    raise ArtifactError(f"{path}: tensor '{name}' {fault}; train it again")
        if content_hash(tensors) != card.content_hash:
            raise ArtifactError(
                f"{path}: its tensors do not match its card (sha256 differs); the file was altered"
            )
        return cls(card, tensors)


def fault_of(tensor: Tensor) -> str:
    """Return in words why a tensor cannot be in an artifact, or nothing."""
    if not tensor.is_floating_point() or tensor.element_size() < 2:
        kind = str(tensor.dtype).removeprefix("torch.")
        return f"holds {kind}; expected floating values of 16 bits or more"
    return "" if torch.isfinite(tensor).all() else "is not finite"


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
