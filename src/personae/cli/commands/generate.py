"""`personae generate`: pictures of a cast, and the same picture again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

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
    draw_shots,
    read_sampling,
    sampling_groups,
    save,
    write_sheet,
)
from personae.cli.terminal import AsJson, Terminal, tilde
from personae.core.files import prepare_folder
from personae.errors import UsageError

if TYPE_CHECKING:
    from personae.generation.cast import Cast
    from personae.generation.recipe import Recipe


FormatOption = Annotated[
    Literal["png", "jpg", "webp"],
    typer.Option("--format", help="Kind of file. Only PNG keeps the very pixels."),
]
LikeOption = Annotated[
    Path | None,
    typer.Option(
        help="A picture drawn by personae, to draw again byte for byte; or by A1111 or "
        "InvokeAI, to draw with its prompt, seed and sampling."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(cls=with_options(sampling_groups))(generate)


def generate(
    ctx: typer.Context,
    prompts: Annotated[
        list[str] | None,
        typer.Argument(help='What to draw; members of the cast in braces: "{mira} on a beach".'),
    ] = None,
    cast: CastOption = None,
    strength: StrengthOption = None,
    base: BaseOption = None,
    seed: Annotated[int, typer.Option(help="Seed of each prompt's first picture.")] = 0,
    number: Annotated[
        int, typer.Option("--number", "-n", min=1, max=10_000, help="Pictures of each prompt.")
    ] = 1,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("pictures"),
    file_format: FormatOption = "png",
    sheet: Annotated[
        bool, typer.Option("--sheet", help="Also put them on one contact sheet.")
    ] = False,
    like: LikeOption = None,
    config: ConfigOption = None,
    batch_size: Annotated[
        int, typer.Option(min=1, max=4096, help="Pictures drawn side by side.")
    ] = 4,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    as_json: AsJson = False,
) -> None:
    """Draw characters in new scenes; each picture holds the recipe that draws it again."""
    from personae.generation.picture_metadata import read_recipe, shot_like
    from personae.generation.sampler import shots_of_prompts

    terminal, given = Terminal(as_json), settings_given(ctx)
    members = load_cast(cast, strength)
    if like is not None:
        _refuse_changes([*(prompts or []), *given, *(strength or [])])
        recipe = read_recipe(like)
        if recipe is not None:
            draw_again(terminal, recipe, members, like, out, source=base, device=device)
            return
        shot, given = shot_like(like)
        shots = [shot]
    else:
        shots = shots_of_prompts(prompts or [], seed, number)
    sampling = read_sampling(given, config)
    loaded = open_base(terminal, base, members, device=device, precision=precision)
    with members.on(loaded):
        drawn = draw_shots(
            terminal,
            loaded,
            shots,
            sampling,
            members,
            out=out,
            batch_size=batch_size,
            suffix=f".{file_format}",
        )
    if sheet:
        write_sheet(terminal, drawn, out)


def draw_again(
    terminal: Terminal,
    wanted: Recipe,
    cast: Cast,
    like: Path,
    out: Path,
    *,
    source: str | None,
    device: str,
) -> None:
    """Draw the picture of a recipe again; `like` is the file it was read from.

    Raises:
        UsageError: base or cast are not those of the recipe.
    """
    from personae.generation.redraw import cast_for, precision_for, redraw
    from personae.models.weights.sources import pick_base

    for name, file in cast_for(wanted, cast, like).items():
        terminal.say(f"With {escape(name)} from {escape(tilde(file))}")
    prepare_folder(out)
    precision = precision_for(wanted)
    chosen = pick_base(source, wanted.base)
    base = open_base(terminal, chosen, cast, device=device, precision=precision)
    with cast.on(base), terminal.waiting("drawing"):
        picture = redraw(base, wanted, cast)
    path = save(terminal, picture, out)
    terminal.say(f"Drawn again: [bold]{escape(tilde(path))}[/]")


def _refuse_changes(given: Sequence[str]) -> None:
    if given:
        raise UsageError(
            f"--like draws a picture by its own recipe, but '{given[0]}' is given too; leave one "
            "of the two out"
        )
