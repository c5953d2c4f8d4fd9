"""The example character, for those who have no pictures at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from personae.errors import UsageError

EXAMPLE: Final = Path("examples") / "mira"


def example_character() -> Path:
    """Return the folder of the example character.

    Raises:
        UsageError: it is not there, as when installed without the repository.
    """
    beside = Path(__file__).parents[3] / EXAMPLE  # from src/personae/characters
    for folder in (EXAMPLE, beside):
        if folder.is_dir():
            return folder
    raise UsageError(
        f"no {EXAMPLE} here; the example characters are in the repository, not in the installed "
        "package; run the demo there, or give pictures of your own with --character FOLDER"
    )
