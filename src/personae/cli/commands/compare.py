"""`personae compare`: which technique serves a character best, measured on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from personae.cli.cast_options import quiet_libraries
from personae.cli.commands.study import (
    JobsOption,
    LimitOption,
    RayOption,
    RetryOption,
    follow,
)
from personae.cli.options import Group, settings_given, with_options
from personae.cli.terminal import AsJson, Terminal


def _groups() -> Sequence[Group]:
    from personae.study.presets import FairComparison

    return [Group("Comparison", FairComparison)]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(cls=with_options(_groups))(compare)


def compare(
    ctx: typer.Context,
    characters: Annotated[list[Path], typer.Argument(help="Folders of pictures.")],
    limit: LimitOption = None,
    jobs: JobsOption = None,
    ray: RayOption = None,
    retry_failed: RetryOption = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the study. Default: studies/<characters>.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train every technique alike, measure them all, and say which to take.

    Same pictures, captions, caches and noise; same prompts and seeds. Runs that are there already
    are not run again. The report is one HTML file that opens anywhere.

    Ends with code 1 if a cell failed.
    """
    from personae.study.presets import FairComparison
    from personae.study.run import pick_runner

    quiet_libraries()
    study = FairComparison.parse(settings_given(ctx), where="compare").study(characters, out)
    chosen = pick_runner(study, jobs, ray)
    follow(Terminal(as_json), study, chosen, limit, retry_failed=retry_failed)
