"""What a person looks at: pages, tables, plots, sheets.

`write_report` is the report of a study, `character_page` the page of one training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from personae.core.doors import door

if TYPE_CHECKING:
    from personae.reports.character_page import character_page
    from personae.reports.sheets import Panel, Section, character_sheet, contact_sheet, save_sheet
    from personae.reports.study_report import write_report

__all__ = [
    "Panel",
    "Section",
    "character_page",
    "character_sheet",
    "contact_sheet",
    "save_sheet",
    "write_report",
]

__getattr__, __dir__ = door(
    __name__,
    {
        "Panel": "sheets",
        "Section": "sheets",
        "character_page": "character_page",
        "character_sheet": "sheets",
        "contact_sheet": "sheets",
        "save_sheet": "sheets",
        "write_report": "study_report",
    },
)
