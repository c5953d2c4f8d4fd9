"""Hypernetworks in safetensors: the lossless twin of A1111's file, without a pickle."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from personae.artifacts.artifact import Artifact
from personae.errors import ArtifactError
from personae.formats.format import Format, needed
from personae.formats.hypernetworks.parts import (
    HypernetworkFile,
    State,
    file_of,
    hypernetwork_artifact,
)
from personae.formats.layout import layout_of
from personae.formats.metadata import CHARACTER, character_in, model_spec
from personae.formats.tensor_file import header_or_none, read_header, read_tensors, write_tensors
from personae.models.family import Family

MARK = "hypernetwork.format"
KIND = "a1111-hypernetwork"
_NAME = re.compile(r"hypernetwork\.(\d{1,4})\.([kv])\.(linear\.\d{1,3}\.(?:weight|bias))")


class HypernetworkSafetensors(Format):
    """One safetensors file with A1111's layers and options under names that say what they are."""

    name = "hypernetwork"
    title = "Hypernetwork in safetensors"
    suffix = ".safetensors"
    techniques = ("hypernetwork",)
    readers = ("personae",)
    not_readers = (
        "A1111 (lists .pt files only)",
        "ComfyUI (applies nothing, without an error: keep it out of its folder)",
    )
    needs_base = True

    def write(self, artifact: Artifact, path: Path, base: Family | None = None) -> Path:
        """Write tensors as `hypernetwork.<width>.<k|v>.linear.<N>.<weight|bias>`."""
        file = file_of(artifact, name=path.stem)
        tensors = {
            f"hypernetwork.{width}.{part}.{name}": value
            for width, pair in file.networks.items()
            for part, state in zip("kv", pair, strict=True)
            for name, value in state.items()
        }
        base = needed(base)
        layout = layout_of(base)
        metadata = {
            MARK: KIND,
            "hypernetwork.version": "1",
            **{f"hypernetwork.{key}": json.dumps(value) for key, value in file.options.items()},
            "ss_base_model_version": layout.version,
            "ss_sd_model_name": artifact.card.base.source,
            CHARACTER: artifact.card.character.model_dump_json(),
        }
        spec = model_spec(artifact, layout, part="hypernetwork", title=path.stem)
        return write_tensors(path, tensors, metadata | spec)

    def recognises(self, path: Path) -> bool:
        """Accept files that say so."""
        header = header_or_none(path)
        return header is not None and header.metadata.get(MARK) == KIND

    def read(self, path: Path, base: Family) -> Artifact:
        """Read layers and options."""
        metadata = read_header(path).metadata
        networks: dict[int, tuple[State, State]] = {}
        for key, value in read_tensors(path).items():
            found = _NAME.fullmatch(key)
            if found is None:
                raise ArtifactError(f"{path}: holds '{key}', which is no layer of a hypernetwork")
            networks.setdefault(int(found[1]), ({}, {}))[found[2] == "v"][found[3]] = value
        return hypernetwork_artifact(
            HypernetworkFile(networks, _options(metadata, path)),
            base,
            path=path,
            title=self.title,
            character=character_in(metadata, path),
        )


def _options(metadata: dict[str, str], path: Path) -> dict[str, Any]:
    try:
        return {
            key.removeprefix("hypernetwork."): json.loads(value)
            for key, value in metadata.items()
            if key.startswith("hypernetwork.") and key != MARK
        }
    except (ValueError, RecursionError):
        raise ArtifactError(f"{path}: its options are damaged") from None
