"""What a Ray worker does with a cell: unpack it, run it in a process of its own, send it back.

Only the standard library is imported here, so that a worker is ready at once and holds no memory
that the cell needs.
"""

from __future__ import annotations

import fcntl
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PREFIX = "personae-cell-"
LOCK = "in-use"
CHARACTER = "@character@"
"""Stands in the spec of a travelling cell for where the worker unpacks the pictures."""


def run_packed(spec: str, character: bytes) -> tuple[int, bytes]:
    """Run a cell and return its exit code and its folder as an archive.

    Args:
        spec: its `cell.toml`, with `CHARACTER` where the pictures are unpacked.
        character: archive of the pictures.
    """
    sweep()
    home = Path(tempfile.mkdtemp(prefix=PREFIX))
    held = os.open(home / LOCK, os.O_CREAT | os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        unpack(character, home / "character")
        cell = home / "cell"
        cell.mkdir()
        place = (home / "character").as_posix()
        (cell / "cell.toml").write_text(spec.replace(CHARACTER, place), encoding="utf-8")
        with (cell / "log.txt").open("wb") as log:
            ended = subprocess.run(
                [sys.executable, "-m", "personae.study.worker", str(cell)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                check=False,
                pass_fds=[held],  # a cell that outlives its worker keeps its folder
            )
        return ended.returncode, pack(cell)
    finally:
        shutil.rmtree(home, ignore_errors=True)
        os.close(held)


def sweep() -> None:
    """Remove what killed workers left: folders of cells that no process holds any more."""
    for home in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            held = os.open(home / LOCK, os.O_RDWR)
        except OSError:  # another user's, or not locked yet by whoever makes it now
            continue
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(home, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(held)


def pack(folder: Path, name: str = ".") -> bytes:
    """Return a folder as an uncompressed tar archive, in which it is called `name`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(folder, arcname=name)
    return buffer.getvalue()


def unpack(archive: bytes, folder: Path) -> None:
    """Write an archive's files below `folder`; nothing can be written outside it."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
        packed.extractall(folder, filter="data")
