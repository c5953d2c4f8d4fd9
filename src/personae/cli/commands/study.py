"""`personae study`: run a grid of trainings from a TOML file, and see how far it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from personae.cli.cast_options import quiet_libraries
from personae.cli.terminal import AsJson, Terminal, tilde
from personae.core.units import count, duration

if TYPE_CHECKING:
    from personae.reports.study_report import Report
    from personae.study.runner import Runner
    from personae.study.study import Study

JobsOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Cells run side by side on this machine. Default: one a core on a small base, else 1.",
    ),
]
RayOption = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Run cells on the Ray cluster there (auto, HOST:PORT); needs the extra `cluster`.",
    ),
]
LimitOption = Annotated[
    str | None,
    typer.Option(help="What the verdict must respect, such as memory=8GiB,size=10MB,minutes=20."),
]
RetryOption = Annotated[
    bool, typer.Option("--retry-failed", help="Also run again the cells that broke.")
]


def register(app: typer.Typer) -> None:
    """Add the command with its two actions."""
    group = typer.Typer(no_args_is_help=True, help="Run a grid of trainings and compare them.")
    group.command("run")(run)
    group.command("status")(status)
    app.add_typer(group, name="study")


def run(
    file: Annotated[Path, typer.Argument(help="Study file: a run file in which values are lists.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the study. Default: studies/<name of the file>.")
    ] = None,
    jobs: JobsOption = None,
    ray: RayOption = None,
    retry_failed: RetryOption = False,
    limit: LimitOption = None,
    as_json: AsJson = False,
) -> None:
    """Run what has no result yet, then write the report.

    A study that was stopped or killed goes on where it was; results are never made twice. Ends
    with code 1 if a cell failed.
    """
    from personae.study.run import pick_runner
    from personae.study.study import Study

    quiet_libraries()
    study = Study.open(file, out)
    chosen = pick_runner(study, jobs, ray)
    follow(Terminal(as_json), study, chosen, limit, retry_failed=retry_failed)


def status(
    file: Annotated[Path, typer.Argument(help="Study file, or a study's folder.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the study.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the cells of a study: done, failed and why, or pending."""
    from personae.study.study import Study

    terminal, table = Terminal(as_json), Table("cell", "state")
    for cell in Study.open(file, out).cells:
        state, error = cell.state, cell.problem
        table.add_row(escape(cell.name), escape(f"{state}: {error}" if error else state))
        terminal.tell("cell", cell=cell.name, state=state, error=error)
    terminal.say(table)


def follow(
    terminal: Terminal,
    study: Study,
    chosen: Runner,
    limit: str | None,
    *,
    retry_failed: bool = False,
) -> None:
    """Run a study, showing what happens, and write its report.

    Raises:
        typer.Exit: a cell failed; the report is written all the same.
    """
    from personae.reports.study_report import write_report
    from personae.study.comparison.limits import Limits
    from personae.study.events import CellFinished, CellProgress, StudyFinished, StudyStarted
    from personae.study.run import run_study

    limits = Limits.parse(limit)  # refused now, not after an hour
    failed = False
    with terminal.bars() as bars:
        for event in run_study(study, chosen, retry_failed=retry_failed):
            terminal.line(event.to_json())
            match event:
                case StudyStarted():
                    done = event.total - event.pending
                    terminal.say(
                        f"{count(event.total, 'cell')} in {escape(tilde(study.folder))}"
                        + (f", {done} of them done" if done else "")
                    )
                    pending = event.pending
                    bars.show("cells", 0, max(1, pending))
                case CellProgress():
                    bars.show("training", event.step, event.steps, event.cell)
                case CellFinished():
                    bars.show("cells", event.done, event.pending)
                    mark = f"[red]failed[/]: {escape(event.error)}" if event.error else "done"
                    terminal.say(f"{escape(event.cell)} {mark} ({duration(event.seconds)})")
                case StudyFinished() if event.failed:
                    failed = True
                    _tell_failures(terminal, study)
    show_report(terminal, write_report(study, limits))
    if failed:
        raise typer.Exit(1)


def _tell_failures(terminal: Terminal, study: Study) -> None:
    """Say which cells failed, and how to run them again."""
    failed = [cell.name for cell in study.failed()]
    them = "it" if len(failed) == 1 else "them"
    terminal.say(
        f"[yellow]![/] {count(len(failed), 'cell')} failed: {escape(', '.join(failed))}. The "
        f"report says why; the same command with --retry-failed runs {them} again."
    )


def show_report(terminal: Terminal, report: Report) -> None:
    """Say what the study advises and where the report is."""
    verdict = report.verdict
    terminal.say(f"\n[bold]{escape(verdict.headline)}[/]")
    for line in (*verdict.others, *verdict.cautions):
        terminal.say(f"  {escape(line)}")
    terminal.say(f"\nReport: [bold]{escape(tilde(report.page))}[/]")
    terminal.tell(
        "report",
        page=report.page,
        result=report.result,
        csv=report.csv,
        png=report.png,
        choice=verdict.choice,
        headline=verdict.headline,
    )
