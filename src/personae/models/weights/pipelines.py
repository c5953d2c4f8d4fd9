"""Loading pipelines of diffusers: into one number format, and whole or not at all."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from personae.core.devices import HOST
from personae.errors import BaseError
from personae.models.weights.files import networks
from personae.models.weights.places import VARIANT, weight_file
from personae.models.weights.sources import checkpoint_keys, is_single_file


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
    path = Path(source)
    local: dict[str, Any] = {"local_files_only": True} if path.is_dir() else {}
    load = kind.from_pretrained
    if is_single_file(source):
        load = kind.from_single_file
        if path.with_suffix("").is_dir():
            local = {"local_files_only": True, "config": str(path.with_suffix(""))}
    with _refusing_damage(source):
        if (path / "model_index.json").is_file():
            read = networks(path, dtype, unloaded, device, given=components)
            local |= _variant(path, read)
            components = {**read, **components}
        loaded = load(str(source), **in_format(dtype), **local, **components)
    _refuse_holes(loaded.components, source)
    return loaded


@contextmanager
def _refusing_damage(source: str | Path) -> Iterator[None]:
    """Turn what diffusers and torch raise of a base that is not whole into one line."""
    from diffusers.loaders.single_file_utils import SingleFileComponentError

    try:
        yield
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
