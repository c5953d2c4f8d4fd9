"""What a person says of a base in a `personae.toml`, beside what its own files say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from personae.core.config import Config, read_toml
from personae.models.weights.sources import is_single_file

NAME = "personae.toml"


class Notes(Config):
    """What a `personae.toml` holds."""

    recommended: dict[str, dict[str, Any]] = {}
    """How each technique is best trained on the base: fields of `Recommended` by technique."""
    base: dict[str, Any] = {}
    """What the base is, in the words of its family (`Family.configure`)."""


def notes_of(source: str | Path) -> tuple[Notes, Path]:
    """Return what is said of a base, nothing where no one does, and the file for it.

    That is `personae.toml` in its folder; for `model.safetensors`, `model.personae.toml` beside it.

    Raises:
        UsageError: the file is not TOML, or says something else.
    """
    file = Path(source) / NAME
    if is_single_file(source):
        file = Path(source).with_suffix(f".{NAME}")
    return Notes.parse(read_toml(file) if file.is_file() else {}, where=str(file)), file
