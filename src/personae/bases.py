"""Loading a base by name, folder, hub id or file, whatever its family."""

from __future__ import annotations

from pathlib import Path

from personae import registry
from personae.devices import pick_device, pick_precision
from personae.errors import BaseError
from personae.families import sources
from personae.families.base import Family


def load_base(
    source: str | Path = "toon", *, device: str = "auto", precision: str = "auto"
) -> Family:
    """Load a base model, frozen, ready for techniques.

    Args:
        source: an embedded name (`toon`), a diffusers folder, a hub id (`owner/name`), or a
            `.safetensors` checkpoint.
        device: auto, cuda, mps or cpu.
        precision: auto, bf16, fp16 or fp32: the format of the frozen weights.

    Raises:
        BaseError: the source is not there, damaged, or of no known family.
    """
    where = sources.embedded_bases().get(str(source), source)
    chosen = pick_device(device)
    families = registry.discover("families", Family)
    for family in families.values():
        if family.recognises(where):
            base = family.load(where, chosen, pick_precision(precision, chosen))
            base.source = str(source)
            return base
    kind = "a single file" if sources.is_single_file(where) else sources.pipeline_class(where)
    raise BaseError(
        f"base '{source}' is {kind}, which no family here loads ({', '.join(families)}); "
        "see docs/adding.md for adding one"
    )
