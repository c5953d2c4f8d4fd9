"""What every file format offers, and nothing about any single one.

A format is one way other tools keep a trained character. It writes an artifact in that way, says
whether a file is of its kind, and reads it back as an artifact for a base. The tools that are
known to open the file, and those known not to, belong to the format.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from personae.artifacts.artifact import Artifact
from personae.artifacts.card import Card
from personae.core.files import stem_of
from personae.core.registry import PlugIn, discover, lookup
from personae.errors import ArtifactError, MissingFileError, UnsupportedError, UsageError
from personae.formats.safe_pickle import PICKLES, load_pickle
from personae.formats.sidecar import open_preview, sidecar_paths, write_sidecar
from personae.formats.tensor_file import read_header
from personae.models.family import Family
from personae.models.load import load_base
from personae.models.weights.sources import stated_base

TENSORS = ".safetensors"


class Format(PlugIn, ABC):
    """One way other tools keep a trained character.

    Attributes:
        name: how the command line calls it.
        title: how people call it.
        suffix: ending of the file; empty for a folder.
        techniques: what it can carry.
        readers: tools that open the file, with the version that was checked where it matters.
        not_readers: tools that do not, with the reason.
        any_family: whether it fits every family of bases, and not only those of which other tools
            know files (`Family.file_layouts`).
        needs_base: whether writing reads the loaded base.
        has_sidecar: whether readers show a text and a picture that lie beside the file.
    """

    package: ClassVar[str] = "personae.formats"
    group: ClassVar[str] = "personae.formats"
    name: ClassVar[str]
    title: ClassVar[str]
    suffix: ClassVar[str]
    techniques: ClassVar[tuple[str, ...]]
    readers: ClassVar[tuple[str, ...]]
    not_readers: ClassVar[tuple[str, ...]]
    any_family: ClassVar[bool] = False
    needs_base: ClassVar[bool] = False
    has_sidecar: ClassVar[bool] = False

    @classmethod
    def fits(cls, family: type[Family]) -> bool:
        """Say whether bases of `family` have files of this kind."""
        return cls.any_family or bool(family.file_layouts)

    @abstractmethod
    def write(self, artifact: Artifact, path: Path, base: Family | None = None) -> Path:
        """Write `artifact` and return the path.

        Args:
            artifact: of one of `techniques`.
            path: file, or folder where `suffix` is empty.
            base: the base it was trained on; given whenever `needs_base` is set.

        Raises:
            ArtifactError: what was learnt cannot be said in this format.
            PersonaeError: the disk is full or the folder cannot be written.
        """

    @abstractmethod
    def recognises(self, path: Path) -> bool:
        """Say whether `path` is of this format, from names and headers alone; never raises."""

    @abstractmethod
    def read(self, path: Path, base: Family) -> Artifact:
        """Return what `path` holds as an artifact for `base`.

        Raises:
            ArtifactError: the file is damaged, hostile, or made for another kind of base.
        """


def formats() -> dict[str, Format]:
    """Return {name: format} of all formats."""
    return {name: kind() for name, kind in discover(Format).items()}


def formats_for(card: Card) -> dict[str, Format]:
    """Return {name: format} of the formats that can carry the artifact of `card`."""
    return {name: each for name, each in formats().items() if _carries(each, card)}


def default_target(artifact: Path, kind: type[Format]) -> Path:
    """Return where the file of an artifact is written in a format: beside the artifact."""
    return artifact.with_name(f"{stem_of(artifact)}.{kind.name}{kind.suffix}")


def files_written(target: Path, kind: type[Format]) -> list[Path]:
    """Return every file or folder that `export_file` may write for `target`."""
    path = with_ending(target, kind)
    return [path, *sidecar_paths(path)] if kind.has_sidecar else [path]


def export_file(
    artifact: Artifact,
    name: str,
    path: str | Path,
    base: Family | None = None,
    *,
    preview: str | Path | None = None,
) -> Path:
    """Write `artifact` in the format called `name` and return the path.

    Args:
        artifact: what to write.
        name: of the format.
        path: where; the format's ending is added if it is missing.
        base: the base it was trained on; where the format needs it, the card's is loaded if it is
            on this machine.
        preview: picture that readers show beside the file.

    Raises:
        UsageError: no such format, or it has no place for a preview.
        UnsupportedError: the format cannot carry the technique, or has no files for its family.
        ArtifactError: the base is not the one the artifact was made for.
    """
    kind = lookup(Format, name)
    _check_carries(kind, artifact)
    if preview is not None and not kind.has_sidecar:
        raise UsageError(f"{kind.title} has no place for a preview; leave it out")
    shown = None if preview is None else open_preview(Path(preview))
    if kind.needs_base and base is None:
        base = load_base(stated_base(artifact.card.base.source), precision="fp32")
    if base is not None:
        artifact.check_base(base)
    path = with_ending(Path(path), kind)
    written = kind().write(artifact, path, base)
    if kind.has_sidecar:
        write_sidecar(artifact, written, needed(base), shown)
    return written


def needed(base: Family | None) -> Family:
    """Return the base that a format with `needs_base` is written with.

    Raises:
        UsageError: none was given.
    """
    if base is None:
        raise UsageError("this format is written with the loaded base; give the artifact's base")
    return base


def _check_carries(kind: type[Format], artifact: Artifact) -> None:
    """Raise UnsupportedError unless files of `kind` hold such an artifact for such a base."""
    card = artifact.card
    if _carries(kind, card):
        return
    others = f"formats that can: {', '.join(formats_for(card)) or 'none'}"
    if not _carries_techniques(kind, card):
        raise UnsupportedError(f"{kind.title} cannot carry {artifact.technique}; {others}")
    raise UnsupportedError(
        f"{kind.title} cannot carry a {artifact.technique} for a base of family "
        f"{card.base.family}, which the programs that open it do not know; {others}"
    )


def _carries(kind: Format | type[Format], card: Card) -> bool:
    return kind.fits(lookup(Family, card.base.family)) and _carries_techniques(kind, card)


def _carries_techniques(kind: Format | type[Format], card: Card) -> bool:
    return {record.name for record in card.techniques} <= set(kind.techniques)


def with_ending(path: Path, kind: type[Format]) -> Path:
    """Return `path` with the ending of files of `kind`."""
    if kind.suffix and path.suffix != kind.suffix:
        return path.with_name(path.name + kind.suffix)
    return path


def format_of(path: str | Path) -> Format:
    """Return the format that recognises `path`.

    Raises:
        ArtifactError: nothing is there, or no format recognises it.
    """
    path = Path(path)
    if not path.exists():
        raise MissingFileError(f"{path}: no such file or folder; check the path")
    known = formats()
    for each in known.values():
        if each.recognises(path):
            return each
    if path.suffix in PICKLES and path.is_file():
        load_pickle(path)  # says what is wrong with it, if anything is
    if path.suffix == TENSORS and path.is_file():
        read_header(path)
    raise ArtifactError(
        f"{path}: is none of the formats that can be read ({', '.join(known)}), or is damaged"
    )


def import_file(path: str | Path, base: Family) -> Artifact:
    """Return what another tool's file holds, as an artifact for `base`.

    Raises:
        ArtifactError: missing, of no known format, damaged, hostile, or for another kind of base.
    """
    return format_of(path).read(Path(path), base)
