"""`personae train`: from a folder of pictures to an artifact."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from personae.cli.cast_options import quiet_libraries
from personae.cli.options import Group, merged, settings_given, with_options
from personae.cli.terminal import AsJson, Bars, Terminal, tilde, typed
from personae.core.units import count, duration, size
from personae.errors import UsageError

if TYPE_CHECKING:
    from personae.core.event import Event
    from personae.training.events import Finished, Stopped
    from personae.training.settings import RunConfig

STOPPED = 130  # as a command ended by Ctrl-C
PREFIXES = {"schedule": ""}  # `--steps`, not `--schedule-steps`: what is set most often


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(cls=with_options(run_groups))(train)


def run_groups() -> Sequence[Group]:
    """Return the settings of a run as panels of options: run, schedule, each technique."""
    from personae.techniques.known import known_techniques
    from personae.training.settings import RunConfig

    techniques = known_techniques()
    return [
        Group("Run", RunConfig, skip=frozenset({"character"})),
        *(
            Group(name.capitalize(), schema, table=(name,), prefix=PREFIXES.get(name, f"{name}_"))
            for name, schema in RunConfig.tables().items()
            if name not in techniques
        ),
        *(
            Group(kind.title, kind.Config, table=(name,), prefix=f"{name}_")
            for name, kind in techniques.items()
        ),
    ]


def train(
    ctx: typer.Context,
    folder: Annotated[
        Path | None, typer.Argument(help="Folder of pictures, or a dataset file of another tool.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="TOML file with the same fields; options given here come first."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder. Default: a new one in runs/.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Run folder of a stopped or killed run to continue.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Learn a character from a folder of pictures.

    Ctrl-C ends the run after its current step with everything saved; --resume continues it.
    """
    terminal = Terminal(as_json)
    given = settings_given(ctx)
    if resume is not None:
        _refuse_changes(given, folder, config, out)
        from personae.training.run_folder import RunFolder

        run, target = RunFolder(resume).config(), resume
    else:
        run = read_run(given, folder, config)
        from personae.training.run_folder import free_folder  # after all that can be refused

        target = out or free_folder(run)
    stopped = follow_run(terminal, run, target, resume=resume is not None)
    if stopped:
        raise typer.Exit(STOPPED)


def read_run(given: dict[str, Any], folder: Path | None, config: Path | None) -> RunConfig:
    """Return the settings of a run: the file's, and over them the options'.

    Raises:
        UsageError: a key or value is wrong, or nothing says which character.
    """
    from personae.core.config import read_toml
    from personae.training.settings import RunConfig

    values = merged(read_toml(config) if config else {}, given)
    if folder is not None:
        values["character"] = folder
    if "character" not in values:
        raise UsageError("no character; give its folder, as in `personae train pictures/mira`")
    run = RunConfig.read(values, where=str(config) if config else "train")
    for name in set(given) & set(run.settings) - set(run.technique_names):
        option = f"--{name}-{next(iter(given[name]))}".replace("_", "-")
        raise UsageError(
            f"{option} has no effect with technique '{run.technique}'; leave it out, or choose "
            f"--technique {name}"
        )
    refuse_missing(run.character)
    return run


def refuse_missing(character: Path) -> None:
    """Refuse a folder that is not there, before anything takes time.

    Raises:
        CharacterError: there is none.
    """
    if not character.expanduser().exists():
        from personae.characters.character import Character

        Character.open(character)


def follow_run(terminal: Terminal, run: RunConfig, out: Path, *, resume: bool = False) -> bool:
    """Train, showing what happens; return whether it was stopped before its end."""
    from personae.training.train import train

    quiet_libraries()
    terminal.say(
        f"Training [bold]{escape(run.technique)}[/] on base {escape(run.base)} in "
        f"{escape(tilde(out))}"
    )
    view = RunView(terminal, run, out)
    with stopping_on_signal(terminal) as should_stop, terminal.bars() as bars:
        for event in train(run, out, resume=resume, should_stop=should_stop):
            terminal.line(event.to_json())
            view.show(event, bars)
    view.close()
    return view.stopped


class RunView:
    """Says in words what a run tells in events.

    Attributes:
        stopped: the run ended before its last step.
        last: the event it ended with.
    """

    def __init__(self, terminal: Terminal, run: RunConfig, out: Path) -> None:
        self.terminal, self.run, self.out = terminal, run, out
        self.stopped = False
        self.last: Stopped | Finished | None = None
        self._drawn = 0

    def show(self, event: Event, bars: Bars) -> None:
        """Show one event."""
        from personae.training import events

        say = self.terminal.say
        match event:
            case events.Preparing():
                bars.show(event.what, event.done, event.total)
            case events.Planned():
                say(f"Memory limit {self.run.memory}: {escape(event.message)}")
            case events.Forecast():
                say(_forecast_in_words(event))
            case events.Step():
                bars.show("training", event.step, event.steps, f"loss {event.loss:.3f}")
            case events.MonitorNote():
                mark = "[yellow]![/]" if event.level == "warning" else "[green]·[/]"
                say(f"{mark} step {event.step}: {escape(event.message)}")
            case events.RolledBack():
                say(
                    f"[yellow]![/] step {event.step}: the loss was not a number; back to step "
                    f"{event.to_step}, learning rate x {event.learning_rate_factor:g}"
                )
            case events.Scored():
                say(
                    f"[green]·[/] step {event.step}: likeness {event.likeness:.3f}, agreement "
                    f"{event.agreement:.3f}"
                )
            case events.StoppedEarly():
                say(f"[green]·[/] stopping early: {escape(event.reason)}")
            case events.Kept():
                say(f"[green]·[/] keeping step {event.step}: {escape(event.reason)}")
            case events.Preview():
                self._drawn += 1
            case events.Stopped():
                self.stopped, self.last = True, event
            case events.Finished():
                self.last = event

    def close(self) -> None:
        """Say how the run ended and what to type next."""
        say, folder = self.terminal.say, tilde(self.out)
        from personae.training.events import Finished, Stopped

        done = self.last
        if isinstance(done, Stopped):
            say(f"Stopped after step {done.step}; everything is saved. Continue with")
            self.terminal.command(f"personae train --resume {typed(self.out)}")
            return
        if not isinstance(done, Finished):
            return
        say(
            f"[bold green]Done[/] in {duration(done.seconds)} of training: "
            f"[bold]{escape(tilde(done.path))}[/] ({size(done.file_bytes)}, "
            f"{count(done.parameters, 'trained parameter')})"
        )
        say(f"{count(self._drawn, 'preview')} in {escape(folder)}/previews. Draw it with")
        name = done.path.name.partition(".")[0]
        self.terminal.command(
            f'personae generate --cast {name}={typed(done.path)} "{{{name}}} at the beach" -n 4'
        )


@contextmanager
def stopping_on_signal(terminal: Terminal) -> Iterator[Callable[[], bool]]:
    """Yield a question, answered with yes after Ctrl-C, SIGTERM or SIGHUP; a second one ends."""
    asked = False

    def ask(number: int, frame: Any) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        if number == signal.SIGHUP:  # nobody is there to read, and writing would fail
            quiet = os.open(os.devnull, os.O_WRONLY)
            for stream in (1, 2):
                if os.isatty(stream):
                    os.dup2(quiet, stream)
            os.close(quiet)
        terminal.say("Stopping after this step, and saving. Ctrl-C again ends at once.")

    previous = {number: signal.signal(number, ask) for number in _heeded()}
    try:
        yield lambda: asked
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _heeded() -> Iterator[int]:
    """Yield the signals that ask a run to stop; a closed terminal not where nohup ignores it."""
    yield from (signal.SIGINT, signal.SIGTERM)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        yield signal.SIGHUP


def _forecast_in_words(forecast: Any) -> str:
    free = "" if forecast.free_bytes is None else f", {size(forecast.free_bytes)} free"
    return (
        f"{count(forecast.pictures, 'picture')}, {count(forecast.steps, 'step')}: about "
        f"[bold]{duration(forecast.seconds)}[/]; peak memory {size(forecast.peak_bytes)}{free}; "
        f"{count(forecast.parameters, 'trainable parameter')}"
    )


def _refuse_changes(
    given: dict[str, Any], folder: Path | None, config: Path | None, out: Path | None
) -> None:
    """A resumed run keeps its settings, or it would not be the same run."""
    named = {"FOLDER": folder, "--config": config, "--out": out}
    extra = [name for name, value in named.items() if value is not None] + sorted(given)
    if extra:
        raise UsageError(
            f"--resume continues a run with its own settings, but '{extra[0]}' is given too; "
            "leave it out, or start a new run without --resume"
        )
