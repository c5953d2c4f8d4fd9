"""Files of other tools; one format per file, found by being here.

`import_file` and `export_file` do the work; a plug-in author needs `Format` from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from personae.core.doors import door

if TYPE_CHECKING:
    from personae.formats.format import Format, export_file, import_file
    from personae.formats.persona import pack, unpack

__all__ = [
    "Format",
    "export_file",
    "import_file",
    "pack",
    "unpack",
]

__getattr__, __dir__ = door(
    __name__,
    {
        "Format": "format",
        "export_file": "format",
        "import_file": "format",
        "pack": "persona",
        "unpack": "persona",
    },
)
