"""Running the cells of a study as Ray tasks, with the same results as on one machine.

A cell and its character travel to the worker as an archive, and its folder comes back as one, so
no shared disk is needed; the base must be embedded, a hub id, or at the same path on every worker.
A task whose worker dies is run again by Ray; nothing is written here before it returns, so nothing
is lost or counted twice.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from personae.core.config import to_toml
from personae.core.devices import HOST
from personae.errors import StudyError, UsageError
from personae.study.cell import Cell
from personae.study.events import CellStarted
from personae.study.ray_worker import CHARACTER, pack, run_packed, unpack
from personae.study.result import CellResult
from personae.study.runner import Runner, fail_without_result

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
    return partial(_run, _connected(address), cpus)


def _connected(address: str) -> Any:
    """Return the module of Ray, connected to the cluster at `address`."""
    try:
        import ray
    except ImportError:
        raise UsageError(
            "--ray needs Ray; install it with `pip install personae[cluster]`"
        ) from None
    try:
        ray.init(
            address, ignore_reinit_error=True, log_to_driver=False, logging_level=logging.ERROR
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise StudyError(
            f"no Ray cluster at '{address}' ({reason}); start one with `ray start --head`"
        ) from None
    return ray


def _run(ray: Any, cpus: float, cells: Sequence[Cell]) -> Iterator[CellStarted | Cell]:
    """Hand all cells to the cluster, and yield each as its result comes back."""
    task = ray.remote(num_cpus=cpus, max_retries=RETRIES)(run_packed)
    there = ray.cluster_resources().get("GPU", 0)
    archives: dict[Path, Any] = {}
    running = {}
    for cell in cells:
        folder = _pictures(cell)
        if folder not in archives:
            archives[folder] = ray.put(pack(folder, folder.name))
        placed = task.options(num_gpus=gpus_of(cell, there))
        running[placed.remote(_travelling(cell), archives[folder])] = cell
        yield CellStarted(cell.name, cell.training / "events.jsonl")
    while running:
        (done, *_), _ = ray.wait(list(running), num_returns=1)
        cell = running.pop(done)
        try:
            code, archive = ray.get(done)
            take_back(archive, cell)
            fail_without_result(cell, code)
        except ray.exceptions.RayError as error:
            first = str(error).strip().splitlines()[0]
            cell.fail(f"its worker died {RETRIES + 1} times or the cluster is gone ({first})")
        yield cell


def gpus_of(cell: Cell, there: float) -> int:
    """Return how many GPUs a cell reserves: one of its own, where it would use one.

    Args:
        cell: whose device is decided on the worker.
        there: GPUs of the cluster; a task that asks for one where there is none waits for ever.
    """
    on_host = cell.spec.run.device == HOST.type
    return int(there >= 1 and not on_host)


def _travelling(cell: Cell) -> str:
    """Return the cell's spec as TOML, with a mark where the worker puts its folder of pictures."""
    character, folder = cell.spec.run.character, _pictures(cell)
    within = Path(folder.name) if character.is_dir() else Path(folder.name, character.name)
    run = cell.spec.run.model_copy(update={"character": CHARACTER / within})
    return to_toml(cell.spec.model_copy(update={"run": run}))


def _pictures(cell: Cell) -> Path:
    """Return the folder of pictures; a set that is described by a file travels as its folder."""
    character = cell.spec.run.character.expanduser().resolve()
    return character if character.is_dir() else character.parent


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
    if isinstance(result, CellResult):
        here = result.character.model_copy(update={"folder": str(cell.spec.run.character)})
        result = result.model_copy(update={"character": here})
    if result is not None:
        cell.write_result(result)
