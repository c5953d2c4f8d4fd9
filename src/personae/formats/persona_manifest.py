"""What a `.persona` file says of itself: whom it shows, what they were taught as, its members."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import Field

from personae.core.config import Config

FORMAT_VERSION = 2
"""2: with a `content_hash`; files of before are read without."""
MANIFEST = "persona.json"


class PackedFile(Config):
    """A member of the file."""

    size: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class PackedArtifact(Config):
    """What the character was taught as."""

    file: str
    technique: str
    strength: str = "1"
    base: str
    fingerprint: str
    metrics: dict[str, float] = {}


class Manifest(Config):
    """All that a `.persona` file says of itself."""

    format_version: int = FORMAT_VERSION
    name: str
    class_noun: str
    licence: str = ""
    """Terms under which the pictures and what was learnt from them may be used."""
    consent: str = ""
    """Who agreed to the use of a living person's likeness, and to what."""
    artifacts: list[PackedArtifact] = []
    files: dict[str, PackedFile] = {}
    content_hash: str = ""
    """Of all the rest, members included by their sha256; none in files of format 1."""

    def sealed(self) -> Manifest:
        """Return the manifest with its hash."""
        values = json.loads(self.model_dump_json())
        return self.model_copy(update={"content_hash": content_hash(values)})


def content_hash(values: dict[str, Any]) -> str:
    """Return the sha256 of a manifest as JSON has it, without its own entry, in hexadecimal."""
    rest = {name: value for name, value in values.items() if name != "content_hash"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
