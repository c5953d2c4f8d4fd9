"""One process at a time in a folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from personae.errors import OccupiedError, PersonaeError

LOCK = ".running"


@contextmanager
def alone_in(
    folder: Path, what: str, refusal: type[PersonaeError] = OccupiedError
) -> Iterator[None]:
    """Hold `folder`, which is made if need be; the system lets go of it if the process dies.

    Args:
        folder: to be held by one process.
        what: is done there, for the message: "training", "study".
        refusal: raised where another process holds it now.

    Raises:
        PersonaeError: of the class `refusal`, with the other's process id.
        PersonaeError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise PersonaeError(
            f"{folder}: cannot be written ({error.strerror}); choose another folder"
        ) from None
    with os.fdopen(descriptor, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            number = file.read(20).strip()
            holder = f" (process {number})" if number.isdigit() else ""
            raise refusal(
                f"{folder}: another process runs this {what} now{holder}; wait for it, or stop it"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
