"""`personae sheet`: one labelled picture of a character in scenes, expressions and media."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from personae.cli.cast_options import (
    BaseOption,
    CastOption,
    DeviceOption,
    PrecisionOption,
    StrengthOption,
    load_cast,
    open_base,
)
from personae.cli.options import settings_given, with_options
from personae.cli.pictures import (
    ConfigOption,
    Drawn,
    draw_shots,
    read_sampling,
    sampling_groups,
)
from personae.cli.terminal import AsJson, Terminal, tilde
from personae.core.files import free_path
from personae.errors import UsageError

if TYPE_CHECKING:
    from personae.evaluation.suite import Suite
    from personae.generation.cast import Cast
    from personae.generation.settings import Sampling
    from personae.models.family import Family


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(cls=with_options(sampling_groups))(sheet)


def sheet(
    ctx: typer.Context,
    cast: CastOption = None,
    strength: StrengthOption = None,
    base: BaseOption = None,
    suite: Annotated[
        str | None, typer.Option(help="Shots to draw: toon, general, or a TOML file of your own.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of every picture.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for sheet and pictures.")] = Path("sheets"),
    config: ConfigOption = None,
    batch_size: Annotated[
        int, typer.Option(min=1, max=4096, help="Pictures drawn side by side.")
    ] = 4,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    as_json: AsJson = False,
) -> None:
    """Draw a character sheet: one character in scenes, with expressions and in media.

    Every member of the cast gets a sheet of its own.
    """
    terminal = Terminal(as_json)
    members = load_cast(cast, strength)
    if not members.members:
        raise UsageError("no character; name one, as in --cast mira=mira.lora.safetensors")
    from personae.evaluation.settings import suite_for

    sampling = read_sampling(settings_given(ctx), config)
    loaded = open_base(terminal, base, members, device=device, precision=precision)
    shots = suite_for(loaded.source, suite)
    with members.on(loaded):
        for name in members.members:
            draw_sheet(
                terminal,
                loaded,
                members,
                name,
                shots,
                sampling=sampling,
                seed=seed,
                out=out,
                batch_size=batch_size,
            )


def draw_sheet(
    terminal: Terminal,
    base: Family,
    cast: Cast,
    name: str,
    suite: Suite,
    *,
    sampling: Sampling,
    seed: int,
    out: Path,
    batch_size: int = 4,
) -> tuple[Path, Drawn]:
    """Draw the suite for the member `name`; return the sheet's path and the pictures."""
    from personae.generation.sampler import shots_of_prompts
    from personae.reports.sheets import save_sheet, suite_sheet

    shots = shots_of_prompts(suite.prompts(f"{{{name}}}"), seed)
    drawn = draw_shots(terminal, base, shots, sampling, cast, out=out / name, batch_size=batch_size)
    member = cast.members[name]
    page = suite_sheet(
        suite,
        [picture.image for _, picture in drawn],
        title=name,
        subtitle=f"{member.phrase}  ·  {member.artifact.technique} on {base.source}  ·  "
        f"{drawn[0][1].recipe.sampling.sampler}, {sampling.steps} steps, seed {seed}",
    )
    path = save_sheet(page, free_path(out, f"{name}-sheet", ".png"))
    terminal.tell("sheet", path=path, name=name)
    terminal.say(f"Character sheet: [bold]{escape(tilde(path))}[/]")
    return path, drawn
