"""What runs cells, and what it does with one whose process ended without a result."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence

from personae.study.cell import Cell
from personae.study.events import CellProgress, CellStarted

Runner = Callable[[Sequence[Cell]], Iterator[CellStarted | CellProgress | Cell]]
"""Runs cells, yielding each when it starts and, as a `Cell`, when it has a result."""


def fail_without_result(cell: Cell, code: int) -> None:
    """Give a cell whose process ended without a result the reason as its result."""
    if cell.result() is not None:
        return
    if code < 0:
        name = signal.Signals(-code).name
        why = " (the system kills processes that take too much memory)" if code == -9 else ""
        cell.fail(f"its process was killed by {name}{why}; run the study again with --retry-failed")
    else:
        cell.fail(f"its process ended with code {code} and no result; see {cell.folder}/log.txt")
