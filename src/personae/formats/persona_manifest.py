"""What a `.persona` file says of itself: whom it shows, what they were taught as, its members."""

from __future__ import annotations

from pydantic import Field

from personae.core.config import Config

FORMAT_VERSION = 1
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
