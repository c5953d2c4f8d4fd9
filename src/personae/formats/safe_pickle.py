"""Pickle files of other tools: looked at before they are opened, and never run.

Reading goes through `torch.load(weights_only=True)` after the size of the archive was checked.
Writing makes a zip of three kinds of members only, since A1111 refuses files that hold the members
torch adds today (`byteorder`, `.format_version`, `.storage_alignment`).
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from personae.core.devices import HOST
from personae.core.files import lfs_pointer, replacing
from personae.errors import ArtifactError

PICKLES = (".pt", ".bin", ".ckpt", ".pth")
MOST_BYTES = 2 * 2**30
"""Largest embedding or hypernetwork that is read; real ones are below 700 MB."""
MOST_MEMBERS = 4096
_MEMBER = re.compile(r"^([^/]+)/(data\.pkl|version|data/\d+)$")
# As zip members are made by torch: no time of day, so that equal content gives equal files.
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


def load_pickle(path: Path) -> Any:
    """Return the plain values and tensors of a file; no code in it is run.

    Raises:
        ArtifactError: too large, a zip bomb, damaged, or it asks to run code.
    """
    _check_size(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location=HOST, weights_only=True)
    except pickle.UnpicklingError:
        raise ArtifactError(
            f"{path}: holds more than tensors and plain values, so that opening it could run code; "
            "convert it to safetensors with the tool that made it"
        ) from None
    except MemoryError:
        raise ArtifactError(f"{path}: asks for more memory than there is") from None
    except Exception as error:  # a damaged pickle raises whatever its bytes say
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise ArtifactError(f"{path}: is damaged ({reason})") from None
    _check_tensors(content, path)
    return content


def tensors_in(path: Path) -> dict[str, torch.Tensor] | None:
    """Return {name: tensor} of a file that holds nothing else, None for any other; never raises."""
    if path.suffix not in PICKLES or not path.is_file():
        return None
    try:
        content = load_pickle(path)
    except ArtifactError:
        return None
    if isinstance(content, dict) and set(content) == {"state_dict"}:
        content = content["state_dict"]
    plain = isinstance(content, dict) and all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in content.items()
    )
    return dict(content) if plain and content else None


def _check_tensors(content: Any, path: Path) -> None:
    """Refuse tensors that show the same bytes many times over, and so unfold when computed with."""
    waiting, seen = [content], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, torch.Tensor):
            claimed = value.numel() * value.element_size()
            held = value.untyped_storage().nbytes()
            if claimed > held:
                raise ArtifactError(f"{path}: a tensor claims {claimed} bytes and holds {held}")
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            waiting += value.values() if isinstance(value, dict) else value


def _check_size(path: Path) -> None:
    try:
        pointer = lfs_pointer(path)
        if pointer:
            raise ArtifactError(f"{path}: {pointer}")
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise ArtifactError(f"{path}: is {size} bytes; at most {MOST_BYTES} are read")
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise ArtifactError(f"{path}: cannot be read ({error})") from None
    whole = sum(member.file_size for member in members)
    if whole > MOST_BYTES or len(members) > MOST_MEMBERS:
        raise ArtifactError(
            f"{path}: unpacks to {whole} bytes in {len(members)} parts; at most {MOST_BYTES} bytes "
            f"in {MOST_MEMBERS} are read"
        )
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED:
            raise ArtifactError(f"{path}: part '{member.filename}' is compressed; torch never does")
        if ".." in member.filename or member.filename.startswith("/"):
            raise ArtifactError(f"{path}: part '{member.filename}' points outside the archive")


def save_pickle(values: Any, path: Path) -> Path:
    """Write plain values and tensors as a zip that every version of A1111 and torch reads.

    Args:
        values: dicts, lists, tuples, strings, numbers, booleans, None and plain tensors.
        path: where.
    """
    with replacing(path) as temporary:
        native = temporary.with_name(f"{temporary.name}.native")
        try:
            with native.open("wb") as file:  # a full disk is told as such, as it is not by name
                torch.save(values, file)
            with zipfile.ZipFile(native) as source, zipfile.ZipFile(temporary, "w") as target:
                for member in source.infolist():
                    found = _MEMBER.match(member.filename)
                    if found:
                        info = zipfile.ZipInfo(f"archive/{found[2]}", _ZIP_TIME)
                        target.writestr(info, source.read(member))
        finally:
            native.unlink(missing_ok=True)
    return path
