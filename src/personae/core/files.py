"""Files that are whole or not there: write beside, flush to disk, rename."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from personae.core import units
from personae.errors import PersonaeError, UsageError

_LFS = b"version https://git-lfs.github.com/spec/"
EMBEDDED = Path(__file__).parents[1] / "embedded"
"""What ships inside the package: `bases` and `encoders`."""
PICTURES = (".png", ".jpg", ".jpeg", ".webp")
LONGEST_NAME = 120
"""Bytes of a name made from text. Systems take 255, of which endings and numbers need a part."""


def safe_name(text: str) -> str:
    """Return `text` as the name of one file or folder, whatever it holds.

    Every word of a file or a setting that becomes part of a path goes through here. A text that is
    such a name stays as it is. From another, separators, control characters, halves of characters
    and leading dots are taken, and a digest of the whole is put behind it, so that unlike texts
    have unlike names.
    """
    name = "".join("_" if c in '/\\:"' or not c.isprintable() else c for c in text)
    name = name.encode("utf-8", "replace").decode().strip().lstrip(".").strip()
    short = name.encode()[:LONGEST_NAME].decode(errors="ignore")
    if short and short == text:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{short}-{digest}" if short else digest


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success it becomes `path`.

    A crash at any instant leaves either the old file or the new one, never a part of it.

    Raises:
        PersonaeError: the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.touch()
            mode = temporary.stat().st_mode  # as the umask has it; safetensors writes 0600
            yield temporary
            temporary.chmod(mode)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        with suppress(OSError):  # the folder itself may be what could not be written
            temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder in the same place; on success it becomes `path`, else nothing is left.

    Raises:
        PersonaeError: the disk is full, or there are files at `path` already.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with _writing(path):
            part.mkdir(parents=True)
            yield part
            part.rename(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn whatever the disk refuses inside the block into one line."""
    try:
        yield
    except PersonaeError:
        raise
    except Exception as error:
        reason = _refusal_of_the_disk(error)
        if reason is None:
            raise
        raise PersonaeError(
            f"{path}: cannot be written ({reason}); free space or choose another "
            "folder; the earlier file, if any, is untouched"
        ) from None


def stem_of(path: Path) -> str:
    """Return `mira` of `mira.lora.safetensors`."""
    return path.name.lstrip(".").split(".", 1)[0]


def free_path(folder: Path, stem: str, suffix: str = "") -> Path:
    """Return a name that is free in `folder`: with a number where the plain one is taken."""
    path, taken = folder / f"{stem}{suffix}", 1
    while path.exists():
        taken += 1
        path = folder / f"{stem}-{taken}{suffix}"
    return path


def prepare_folder(folder: Path) -> None:
    """Make a folder that files can be written to, before the work that fills it.

    Raises:
        UsageError: a new one is named like a picture.
        PersonaeError: it cannot be made, or nothing can be written there.
    """
    for part in (folder, *folder.parents):
        if part.suffix.lower() in PICTURES and not part.is_dir():
            raise UsageError(f"'{part}' is to become a folder, but has the name of a picture")
    probe = folder / f".{os.getpid()}.probe"
    with replacing(probe) as temporary:
        temporary.touch()
    probe.unlink()


def _refusal_of_the_disk(error: BaseException) -> str | None:
    """Return in words why the system did not let a file be written; None if it did.

    torch hides the system's error behind a RuntimeError, and safetensors tells it only as text.
    """
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if number := re.search(r"\(os error (\d+)\)", str(error)):
        return os.strerror(int(number[1]))
    hidden = error.__context__ if isinstance(error, RuntimeError) else None
    return _refusal_of_the_disk(hidden) if hidden else None


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def lfs_pointer(path: Path) -> str:
    """Return what to do about a file that only points to another in Git LFS; "" for any other.

    Source: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md.
    """
    with path.open("rb") as file:
        start = file.read(1024)
    if not start.startswith(_LFS):
        return ""
    size = re.search(rb"^size (\d{1,18})$", start, re.MULTILINE)
    told = f" of {units.size(int(size[1]))}" if size else ""
    return f"it is a Git LFS pointer to a file{told}; fetch that with `git lfs pull`"
