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
    artifacts_at_hand,
    load_cast,
    open_base,
)
from personae.cli.drawing import (
    ConfigOption,
    draw_shots,
    read_sampling,
    sampling_groups,
    save,
    write_sheet,
)
from personae.cli.options import settings_given, with_options
from personae.cli.terminal import AsJson, Terminal, tilde
from personae.core.files import prepare_folder
from personae.errors import UsageError

if TYPE_CHECKING:
    from personae.generation.cast import Cast
    from personae.generation.recipe import Recipe


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
        int, typer.Option("--number", "-n", min=1, help="Pictures of each prompt.")
    ] = 1,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("pictures"),
    file_format: Annotated[
        Literal["png", "jpg", "webp"],
        typer.Option("--format", help="Kind of file. Only PNG keeps the very pixels."),
    ] = "png",
    sheet: Annotated[
        bool, typer.Option("--sheet", help="Also put them on one contact sheet.")
    ] = False,
    like: Annotated[
        Path | None,
        typer.Option(
            help="A picture drawn by personae, to draw again byte for byte; or by A1111 or "
            "InvokeAI, to draw with its prompt, seed and sampling."
        ),
    ] = None,
    config: ConfigOption = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures drawn side by side.")] = 4,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    as_json: AsJson = False,
) -> None:
    """Draw characters in new scenes; each picture holds the recipe that draws it again."""
    from personae.generation.sampler import Shot

    terminal = Terminal(as_json)
    given = settings_given(ctx)
    members = load_cast(cast, strength)
    if like is not None:
        _refuse_changes([*(prompts or []), *given, *(strength or [])])
        recipe = recipe_in(like)
        if recipe is not None:
            draw_again(terminal, recipe, members, like, out, source=base, device=device)
            return
        shots, given = shot_like(like)
    elif prompts:
        shots = [Shot(prompt, seed + i) for prompt in prompts for i in range(number)]
    else:
        raise UsageError('no prompt; say what to draw, as in "{mira} on a beach"')
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


def recipe_in(file: Path) -> Recipe | None:
    """Return the recipe a picture of ours holds, or None if another tool drew it.

    Raises:
        UsageError: no such file, not a picture, or its recipe is damaged.
    """
    from pydantic import ValidationError

    from personae.core.config import first_problem
    from personae.generation.picture import CHUNK
    from personae.generation.picture_metadata import read_texts
    from personae.generation.recipe import Recipe

    text = read_texts(file).get(CHUNK)
    try:
        return None if text is None else Recipe.model_validate_json(text)
    except ValidationError as error:
        reason = first_problem(Recipe, error)
        raise UsageError(f"{file}: its recipe is damaged ({reason}); draw another") from None


def shot_like(file: Path) -> tuple[list, dict]:
    """Return what another tool's picture was asked for, and its sampling.

    Raises:
        UsageError: it holds no settings that can be read.
    """
    from personae.generation.picture_metadata import read_settings
    from personae.generation.sampler import Shot

    settings = read_settings(file)
    return [Shot(settings.prompt, settings.seed or 0)], settings.sampling()


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

    Members that `cast` lacks are taken from artifacts at hand.

    Raises:
        UsageError: base or cast are not those of the recipe.
    """
    from personae.artifacts.artifact import Artifact
    from personae.artifacts.strength import Strength
    from personae.generation.cast import Member
    from personae.generation.redraw import redraw

    for name, file in artifacts_at_hand(wanted, like).items():
        if name not in cast.members:
            cast.members[name] = Member(Artifact.load(file), path=file)
            terminal.say(f"With {escape(name)} from {escape(tilde(file))}")
    for name, member in cast.members.items():
        if name in wanted.cast:
            member.strength = Strength.parse(wanted.cast[name].strength)
    prepare_folder(out)
    precision = _precision_name(wanted.precision)
    base = open_base(terminal, source or wanted.base, cast, device=device, precision=precision)
    with cast.on(base), terminal.waiting("drawing"):
        picture = redraw(base, wanted, cast)
    path = save(terminal, picture, out)
    terminal.say(f"Drawn again: [bold]{escape(tilde(path))}[/]")


def _precision_name(recorded: str) -> str:
    """Return the name `load_base` takes for the number format a recipe records."""
    from personae.core.devices import PRECISIONS
    from personae.models.weights.quantised import QUANTISED

    names = {str(dtype).removeprefix("torch."): name for name, dtype in PRECISIONS.items()}
    return names.get(recorded, recorded if recorded in QUANTISED else "auto")


def _refuse_changes(given: Sequence[str]) -> None:
    if given:
        raise UsageError(
            f"--like draws a picture by its own recipe, but '{given[0]}' is given too; leave one "
            "of the two out"
        )
