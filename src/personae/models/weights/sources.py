"""Where bases come from: embedded names, folders, hub ids and single files."""

from __future__ import annotations

import json
import os
from functools import cache
from inspect import getfile
from pathlib import Path
from typing import Any, cast

from personae.core.config import read_toml
from personae.core.files import EMBEDDED
from personae.core.registry import PlugIn, nearest
from personae.core.tensor_header import HeaderError, read_tensor_header
from personae.errors import BaseError, UsageError

USUAL_BASE = "toon"
"""Taken where nobody names a base."""


def is_single_file(source: str | Path) -> bool:
    """Say whether `source` is a checkpoint file rather than a folder or a hub id."""
    return str(source).endswith((".safetensors", ".ckpt", ".pt", ".bin", ".gguf"))


def checkpoint_keys(path: str | Path) -> list[str]:
    """Return the tensor names of a safetensors checkpoint; only its header is read.

    Raises:
        BaseError: the file is missing, damaged, or a pickle.
    """
    if not Path(path).is_file():
        raise BaseError(f"{path}: no such file; check the path")
    if Path(path).suffix == ".gguf":
        raise BaseError(
            f"{path}: is a GGUF file, quantised for drawing; training needs the weights in bf16, "
            "fp16 or fp32: get that .safetensors file"
        )
    if Path(path).suffix != ".safetensors":
        raise BaseError(
            f"{path}: is a pickle checkpoint, which can run code; get or convert it to .safetensors"
        )
    try:
        return list(read_tensor_header(Path(path)).tensors)
    except (HeaderError, OSError) as error:
        raise BaseError(f"{path}: is damaged ({error}); fetch it again") from None


def pipeline_class(source: str | Path) -> str | None:
    """Return the pipeline class a folder or hub id declares, or None if it declares none.

    Raises:
        BaseError: `source` is neither a folder with a whole model_index.json nor a reachable hub
            id.
    """
    index = Path(source) / "model_index.json"
    if Path(source).is_dir() and not os.access(source, os.R_OK | os.X_OK):
        raise BaseError(f"{source}: may not be read; change its permissions (chmod u+rx)")
    if index.is_file():
        try:
            kind: str | None = json.loads(index.read_text(encoding="utf-8")).get("_class_name")
            return kind
        except (OSError, ValueError, AttributeError, RecursionError) as error:
            raise BaseError(f"{index}: is damaged ({error}); fetch the base again") from None
    if Path(source).exists():
        raise BaseError(f"{source}: has no model_index.json; expected a diffusers folder")
    if str(source).count("/") != 1 or str(source).startswith((".", "/", "~")):
        raise BaseError(
            f"'{source}' is no folder, file or hub id (owner/name); `personae bases` lists the "
            f"embedded ones.{nearest(str(source), embedded_bases())}"
        )
    from diffusers import DiffusionPipeline

    try:
        return cast("str | None", DiffusionPipeline.load_config(str(source)).get("_class_name"))
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise BaseError(
            f"hub base '{source}' could not be read ({reason}); check the name and the network, "
            "or give a local folder"
        ) from None


def embedded_bases() -> dict[str, Path]:
    """Return {name: folder} of the bases shipped inside the package."""
    found = sorted((EMBEDDED / "bases").glob("*/model_index.json"))
    return {index.parent.name: index.parent for index in found}


def local_folder(source: str | Path) -> Path:
    """Return the folder of a base on this machine; what is none gives a path without a base."""
    return embedded_bases().get(str(source), Path(source))


def stated_base(source: str) -> str:
    """Return the base that a card or a recipe names, if all of it is on this machine.

    A file never makes this machine ask a hub, nor open what is no base: only a person does.

    Raises:
        UsageError: it is not here.
    """
    path = Path(source)
    try:
        if source in embedded_bases() or (path / "model_index.json").is_file():
            return source
        # The settings of a single file come from the hub unless they lie beside it.
        beside = path.with_suffix("") / "model_index.json"
        if source.endswith(".safetensors") and path.is_file() and beside.is_file():
            return source
    except (OSError, ValueError):  # no name of a file
        pass
    raise UsageError(
        f"the file says that it needs base '{source[:100]}', which is not on this machine and is "
        "not looked for by itself; name the base with --base (a folder, a file or a hub id)"
    )


def pick_base(named: str | None, stated: str | None) -> str:
    """Return which base to load: the one named, else the one a file states, else the embedded one.

    Args:
        named: by a person; any folder, file or hub id.
        stated: by a card or a recipe; taken only if it is on this machine.

    Raises:
        UsageError: none is named, and the stated one is not here.
    """
    return named or (stated_base(stated) if stated else USUAL_BASE)


@cache
def practice_with(family: type[PlugIn]) -> dict[str, dict[str, Any]]:
    """Read what trainers in use do with bases of a family, from `<name>.toml` beside its file.

    It has the tables of a `personae.toml`.

    Raises:
        UsageError: the file is not TOML.
    """
    file = Path(getfile(family)).with_name(f"{family.name}.toml")
    return read_toml(file).get("recommended", {}) if file.is_file() else {}
