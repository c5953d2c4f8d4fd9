"""`personae report`: write the page of a study anew, with other limits or while it still runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from personae.cli.commands.study import LimitOption, show_report
from personae.cli.terminal import AsJson, Terminal


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(report)


def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a study.")],
    limit: LimitOption = None,
    out: Annotated[
        Path | None, typer.Option(help="Where the files go. Default: the study's folder.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the report of what a study has found so far."""
    from personae.reports.study_report import write_report
    from personae.study.comparison.limits import Limits
    from personae.study.study import Study

    written = write_report(Study.open(folder), Limits.parse(limit), out)
    show_report(Terminal(as_json), written)
