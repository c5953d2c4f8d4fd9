"""Running the cells of a study as Ray tasks, with the same results as on one machine.

A cell and its character travel to the worker as an archive, and its folder comes back as one, so
no shared disk is needed; the base must be embedded, a hub id, or at the same path on every worker.
A task whose worker dies is run again by Ray; nothing is written here before it returns, so nothing
is lost or counted twice.
"""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from personae.cells import Cell
from personae.errors import StudyError, UsageError
from personae.execution import CellProgress, CellStarted, Runner, settle, start

RETRIES = 3
"""How often a cell is run again after its worker died, before it counts as failed."""


def on_ray(address: str, cpus: float = 1) -> Runner:
    """Return a runner of cells on the cluster at `address` ("auto", "host:port", "local").

    Args:
        address: of the head node; "local" starts a cluster on this machine for as long as it runs.
        cpus: processors that a cell takes up.

    Raises:
        UsageError: Ray is not installed.
        StudyError: there is no cluster at that address.
    """
    try:
        import ray
    except ImportError:
        raise UsageError(
            "--ray needs Ray; install it with `pip install personae[cluster]`"
        ) from None
    try:
        ray.init(address, ignore_reinit_error=True, log_to_driver=False, logging_level="error")
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise StudyError(
            f"no Ray cluster at '{address}' ({reason}); start one with `ray start`"
        ) from None

    def run(cells: Sequence[Cell]) -> Iterator[CellStarted | CellProgress | Cell]:
        task = ray.remote(num_cpus=cpus, max_retries=RETRIES)(run_remotely)
        archives: dict[Path, object] = {}
        running = {}
        for cell in cells:
            folder = Path(cell.spec.run.character).expanduser().resolve()
            if folder not in archives:
                archives[folder] = ray.put(pack(folder))
            running[task.remote(cell.spec.model_dump_json(), archives[folder])] = cell
            yield CellStarted(cell.name, cell.training / "events.jsonl")
        while running:
            (done, *_), _ = ray.wait(list(running), num_returns=1)
            cell = running.pop(done)
            try:
                take_back(ray.get(done), cell)
            except ray.exceptions.RayError as error:
                first = str(error).strip().splitlines()[0]
                cell.fail(f"its worker died {RETRIES + 1} times or the cluster is gone ({first})")
            yield cell

    return run


def run_remotely(spec: str, character: bytes) -> bytes:
    """Run a cell on a worker and return its folder as an archive.

    Args:
        spec: JSON of its spec.
        character: archive of the pictures.
    """
    from personae.cells import CellSpec

    home = Path(tempfile.mkdtemp(prefix="personae-cell-"))
    try:
        unpack(character, home / "character")
        stated = CellSpec.model_validate_json(spec)
        name = stated.run.character.name
        (home / "character").rename(home / name) if name != "character" else None
        run = stated.run.model_copy(update={"character": home / name})
        cell = Cell(stated.model_copy(update={"run": run}), home / "cell")
        cell.begin()
        process = start(cell)
        try:
            settle(cell, process.wait())
        except BaseException:
            process.terminate()
            raise
        return pack(cell.folder)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def take_back(archive: bytes, cell: Cell) -> None:
    """Put a cell's folder where it belongs; its result comes last, as the mark that it is whole."""
    with tempfile.TemporaryDirectory(dir=cell.folder) as place:
        unpack(archive, Path(place))
        for path in sorted(Path(place).rglob("*")):
            relative = path.relative_to(place)
            if path.is_file() and str(relative) not in ("cell.toml", "result.json"):
                target = cell.folder / relative
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, target)
        result = Cell(cell.spec, Path(place)).result()
        if result is None:
            cell.fail("the worker gave back no result; run the study again with --retry-failed")
            return
        if "character" in result:
            result["character"]["folder"] = str(cell.spec.run.character)
        cell.write_result(result)


def pack(folder: Path) -> bytes:
    """Return a folder, or the folder of a file, as an uncompressed tar archive."""
    home = folder if folder.is_dir() else folder.parent
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(home, arcname=".")
    return buffer.getvalue()


def unpack(archive: bytes, folder: Path) -> None:
    """Write an archive's files below `folder`; nothing can be written outside it."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
        packed.extractall(folder, filter="data")
