"""What a Ray worker does with a cell: unpack it, run it in a process of its own, send it back.

Only the standard library is imported here, so that a worker is ready at once and holds no memory
that the cell needs.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

CHARACTER = "@character@"
"""Stands in the spec of a travelling cell for where the worker unpacks the pictures."""


def run_packed(spec: str, character: bytes) -> tuple[int, bytes]:
    """Run a cell and return its exit code and its folder as an archive.

    Args:
        spec: its `cell.toml`, with `CHARACTER` where the pictures are unpacked.
        character: archive of the pictures.
    """
    home = Path(tempfile.mkdtemp(prefix="personae-cell-"))
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
            )
        return ended.returncode, pack(cell)
    finally:
        shutil.rmtree(home, ignore_errors=True)


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
