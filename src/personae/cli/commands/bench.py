"""`personae bench`: how fast and how lean, beside a plain loop of diffusers and peft."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from personae.cli.options import Group, settings_given, with_options
from personae.cli.terminal import AsJson, Terminal, tilde

if TYPE_CHECKING:
    from personae.benchmark.results import Results

COLUMNS = {
    "step": "step_seconds",
    "first step": "first_step_seconds",
    "peak": "peak_bytes",
    "steady": "steady_bytes",
    "load": "use_load_seconds",
    "switch": "use_switch_seconds",
    "picture": "use_picture_seconds",
}


def _groups() -> Sequence[Group]:
    from personae.benchmark.jobs import Plan

    return [Group("Settings", Plan)]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(cls=with_options(_groups))(bench)


def bench(
    ctx: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder for bench.json and bench.svg.")] = Path("bench"),
    as_json: AsJson = False,
) -> None:
    """Measure training steps, memory, switching and pictures of techniques on a base.

    Each figure comes from a process of its own; medians are told.
    """
    terminal = Terminal(as_json)
    results = _measured(terminal, settings_given(ctx), out)
    _tell(terminal, results, out)
    for precision, machine in results.machine.items():
        terminal.say(
            f"peak of this machine in {precision}: {machine['peak_rate'] / 1e9:.0f} GFLOP/s "
            f"({machine['threads']} threads)"
        )
    terminal.say(table_of(results.rows()))


def _measured(terminal: Terminal, given: dict[str, Any], out: Path) -> Results:
    """Measure, keeping in the file at any time what there is."""
    from personae.benchmark.bench import bench
    from personae.benchmark.jobs import Plan

    plan = Plan.parse(given, where="bench")
    with terminal.bars() as bars:
        for event in bench(plan):
            bars.show("measuring", event.done, event.total, event.title)
            terminal.tell("measuring", done=event.done, total=event.total, title=event.title)
            event.results.write(out / "bench.json")
    return event.results


def _tell(terminal: Terminal, results: Results, out: Path) -> None:
    from personae.benchmark.plot import draw_plot

    told = results.as_json()
    plot = draw_plot(told["rows"], out / "bench.svg")
    terminal.tell("benchmark", **told)
    terminal.say(f"Written: [bold]{escape(tilde(out / 'bench.json'))}[/], {escape(tilde(plot))}")


def table_of(rows: list[dict[str, Any]]) -> Table:
    """Return a line for each side of each row, and one with how many times ours is better."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("technique", "", "by", *COLUMNS, "of the peak"):
        table.add_column(title)
    for row in rows:
        for side in ("personae", "diffusers"):
            if side in row:
                name = row["technique"] if side == "personae" else ""
                precision = row["precision"] if side == "personae" else ""
                table.add_row(name, precision, side, *_cells(row[side]))
        if row["times_better"]:
            ratios = [row["times_better"].get(name) for name in COLUMNS.values()]
            words = [f"{ratio:.2f}x" if ratio else "" for ratio in ratios]
            table.add_row("", "", "better by", *words, "", style="bold")
    return table


def _cells(figures: dict[str, float]) -> list[str]:
    from personae.core.units import show

    kinds = {name: "peak_bytes" if name.endswith("bytes") else name for name in COLUMNS.values()}
    cells = [show(kind, figures[name]) if name in figures else "" for name, kind in kinds.items()]
    share = figures.get("share_of_peak")
    return [*cells, f"{share:.0%}" if share else ""]
