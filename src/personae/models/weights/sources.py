"""Where bases come from: folders, hub ids and single files; what they are, before loading them."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from torch import nn

from personae.core.config import read_toml
from personae.core.devices import HOST
from personae.core.files import EMBEDDED
from personae.core.registry import nearest
from personae.core.tensor_header import HeaderError, read_tensor_header
from personae.errors import BaseError, UsageError
from personae.models.weights.files import VARIANT, networks, weight_file

AUTOENCODER = "vae"  # its folder in every pipeline of diffusers


def is_single_file(source: str | Path) -> bool:
    """Say whether `source` is a checkpoint file rather than a folder or a hub id."""
    return str(source).endswith((".safetensors", ".ckpt", ".pt", ".bin"))


def checkpoint_keys(path: str | Path) -> list[str]:
    """Return the tensor names of a safetensors checkpoint; only its header is read.

    Raises:
        BaseError: the file is missing, damaged, or a pickle.
    """
    if not Path(path).is_file():
        raise BaseError(f"{path}: no such file; check the path")
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


def load_pipeline(
    kind: type[Any],
    source: str | Path,
    dtype: torch.dtype,
    *,
    unloaded: Collection[str] = (),
    device: torch.device = HOST,
    **components: Any,
) -> Any:
    """Load a diffusers pipeline straight into `dtype`; no float32 copy is made on the way.

    Networks of a local folder are read tensor by tensor (`weights.files`) where their files allow
    it; of those named in `unloaded` only the shapes, on `device`.

    A single file holds weights only. Its configuration and tokenizer come from a diffusers folder
    beside it that has its name without the ending (`model.safetensors` and `model/`), or, without
    one, from the hub, as diffusers does.

    Raises:
        BaseError: a file is missing or damaged, or the hub is out of reach.
    """
    from diffusers.loaders.single_file_utils import SingleFileComponentError

    path = Path(source)
    local: dict[str, Any] = {"local_files_only": True} if path.is_dir() else {}
    load = kind.from_pretrained
    if is_single_file(source):
        load = kind.from_single_file
        if path.with_suffix("").is_dir():
            local = {"local_files_only": True, "config": str(path.with_suffix(""))}
    try:
        if (path / "model_index.json").is_file():
            read = networks(path, dtype, unloaded, device)
            local |= _variant(path, read)
            components = {**read, **components}
        loaded = load(str(source), **in_format(dtype), **local, **components)
    except KeyError as error:
        raise BaseError(
            f"base '{source}' is not whole: it has no weight {error}; fetch it again"
        ) from None
    except NotImplementedError:  # what torch raises where a weight never got a value
        raise BaseError(
            f"base '{source}' is not whole: some of its weights are in no file; fetch it again"
        ) from None
    except (OSError, ValueError, SafetensorError, SingleFileComponentError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BaseError(f"base '{source}' could not be loaded: {reason}") from None
    _refuse_holes(loaded.components, source)
    return loaded


def require_parts(path: Path, parts: Mapping[str, tuple[str, ...]]) -> None:
    """Refuse a single file that lacks a part of a base, before anything is loaded.

    Args:
        path: a safetensors checkpoint.
        parts: {what a person calls the part: beginnings of the names of its tensors}.

    Raises:
        BaseError: names every part that is missing.
    """
    keys = checkpoint_keys(path)
    missing = [
        f"{part} ({starts[0]}*)"
        for part, starts in parts.items()
        if not any(key.startswith(starts) for key in keys)
    ]
    if missing:
        raise BaseError(
            f"{path}: holds no {' and no '.join(missing)}; only a whole checkpoint is a base, so "
            "get the one with all parts, or `personae import` this one onto its base"
        )


def _refuse_holes(components: Mapping[str, Any], source: str | Path) -> None:
    """Refuse networks some of whose weights were in no file."""
    for name, component in components.items():
        if isinstance(component, nn.Module):
            holes = [key for key, value in component.named_parameters() if value.is_meta]
            if holes:
                raise BaseError(
                    f"base '{source}' is not whole: its {name} has no value for '{holes[0]}'"
                    f"{f' and {len(holes) - 1} more' if len(holes) > 1 else ''}; fetch it again"
                )


def _variant(folder: Path, read: Collection[str]) -> dict[str, str]:
    """Return the argument that lets diffusers load what was not read, where only fp16 is there."""
    files = [weight_file(each) for each in folder.iterdir() if each.name not in read]
    halves = any(file is not None and VARIANT in file.name for file in files)
    return {"variant": VARIANT.removeprefix(".")} if halves else {}


def in_format(dtype: torch.dtype) -> dict[str, torch.dtype]:
    """Return the argument by which this version of diffusers is told a number format."""
    return {"dtype" if has_diffusers((0, 42)) else "torch_dtype": dtype}


def has_diffusers(at_least: tuple[int, int]) -> bool:
    """Say whether diffusers is of this version or later."""
    import diffusers

    return tuple(int(part) for part in diffusers.__version__.split(".")[:2]) >= at_least


def require_diffusers(at_least: tuple[int, int], source: str | Path) -> None:
    """Refuse a base that the installed diffusers is too old for.

    Raises:
        BaseError: it is; the message says which version is needed.
    """
    if not has_diffusers(at_least):
        import diffusers

        wanted = ".".join(map(str, at_least))
        raise BaseError(
            f"base '{source}' needs diffusers {wanted} or later, and this is "
            f"{diffusers.__version__}; upgrade it (pip install -U diffusers)"
        )


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


def embedded_bases() -> dict[str, Path]:
    """Return {name: folder} of the bases shipped inside the package."""
    found = sorted((EMBEDDED / "bases").glob("*/model_index.json"))
    return {index.parent.name: index.parent for index in found}


@dataclass(frozen=True, slots=True)
class BaseDescription:
    """What a base is, without loading it.

    Attributes:
        kind: class of its pipeline. resolution: side in pixels of the pictures it was trained on,
            None if it does not say so. parameters: numbers in its weight files. bytes: of its
            folder.
        recommended: {technique: {field: value}}, the training advice of its `personae.toml`.
        path: its folder.
    """

    kind: str
    resolution: int | None
    parameters: int
    bytes: int
    recommended: dict[str, dict[str, Any]]
    path: Path


def describe_base(folder: Path) -> BaseDescription:
    """Describe the base in a diffusers folder; of its weights only the headers are read.

    Raises:
        BaseError: it is no such folder, or a file in it is damaged.
        UsageError: its training advice is not TOML.
    """
    kind = pipeline_class(folder) or ""
    advice = folder / "personae.toml"
    try:
        parameters = sum(read_tensor_header(file).numbers for file in folder.rglob("*.safetensors"))
        resolution = _resolution(folder)
    except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise BaseError(f"{folder}: is damaged ({error}); fetch the base again") from None
    return BaseDescription(
        kind=kind,
        resolution=resolution,
        parameters=parameters,
        bytes=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        recommended=read_toml(advice).get("recommended", {}) if advice.is_file() else {},
        path=folder,
    )


def _resolution(folder: Path) -> int | None:
    """Return the side in pixels of the pictures the denoiser was trained on, if it says so."""
    parts = {
        path.parent.name: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob("*/config.json"))
    }
    if not all(isinstance(config, dict) for config in parts.values()):
        raise ValueError("a config.json holds no table")
    autoencoder = parts.pop(AUTOENCODER, {})
    pixels = autoencoder.get("sample_size")  # the denoiser's own is in latents
    latents = next((each["sample_size"] for each in parts.values() if "sample_size" in each), None)
    blocks = autoencoder.get("block_out_channels")
    if isinstance(latents, int) and blocks:
        pixels = latents * 2 ** (len(blocks) - 1)
    return pixels if isinstance(pixels, int) else None
