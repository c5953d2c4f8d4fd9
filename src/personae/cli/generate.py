"""`personae generate`: pictures of a cast, and the same picture again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from personae.cli.loading import (
    BaseOption,
    CastOption,
    DeviceOption,
    PrecisionOption,
    StrengthOption,
    load_cast,
    open_base,
)
from personae.cli.schema_options import Group, merged, settings_given, with_options
from personae.cli.terminal import AsJson, Terminal, tilde
from personae.errors import UsageError
from personae.wording import count

if TYPE_CHECKING:
    from personae.cast import Cast
    from personae.families.base import Family
    from personae.generation import Shot
    from personae.pictures import Picture, Sampling

SLUG_LENGTH = 48


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(cls=with_options(sampling_groups))(generate)


def sampling_groups() -> Sequence[Group]:
    """Return how pictures are drawn, as a panel of options."""
    from personae.pictures import Sampling

    return [Group("Sampling", Sampling)]


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
    sheet: Annotated[
        bool, typer.Option("--sheet", help="Also put them on one contact sheet.")
    ] = False,
    like: Annotated[
        Path | None, typer.Option(help="A PNG drawn by personae to draw again, byte for byte.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file with sampling fields; options come first.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures drawn side by side.")] = 4,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    as_json: AsJson = False,
) -> None:
    """Draw characters in new scenes; each PNG holds the recipe that draws it again."""
    terminal = Terminal(as_json)
    members = load_cast(cast, strength)
    if like is not None:
        _refuse_changes([*(prompts or []), *settings_given(ctx), *(strength or [])])
        draw_again(terminal, like, members, out, source=base, device=device)
        return
    if not prompts:
        raise UsageError('no prompt; say what to draw, as in "{mira} on a beach"')
    sampling = read_sampling(settings_given(ctx), config)
    loaded = open_base(terminal, base, members, device=device, precision=precision)
    from personae.generation import Shot

    shots = [Shot(prompt, seed + i) for prompt in prompts for i in range(number)]
    with members.on(loaded):
        drawn = draw_shots(
            terminal, loaded, shots, sampling, members, out=out, batch_size=batch_size
        )
    if sheet:
        write_sheet(terminal, drawn, out)


def read_sampling(given: dict[str, Any], config: Path | None) -> Sampling:
    """Return how to draw: the file's fields, and over them the options'.

    Raises:
        UsageError: a key or value is wrong.
    """
    from personae.config import read_toml
    from personae.pictures import Sampling

    values = merged(read_toml(config) if config else {}, given)
    return Sampling.parse(values, where=str(config) if config else "generate")


def draw_shots(
    terminal: Terminal,
    base: Family,
    shots: Sequence[Shot],
    sampling: Sampling,
    cast: Cast,
    *,
    out: Path,
    batch_size: int = 4,
) -> list[tuple[Path, Picture]]:
    """Draw `shots` with a bar, save each picture as soon as it is there, and return them."""
    from personae import generation

    drawn: list[tuple[Path, Picture]] = []
    with terminal.bars() as bars:
        for event in generation.generate(base, shots, sampling, cast, batch_size=batch_size):
            if isinstance(event, generation.Drawing):
                bars.show("drawing", event.done, event.total, f"{len(drawn)} of {len(shots)} done")
                terminal.tell("drawing", done=event.done, total=event.total)
            else:
                drawn.append((_save(terminal, event, out), event))
    terminal.say(f"{count(len(drawn), 'picture')} in [bold]{escape(tilde(out))}[/]")
    return drawn


def draw_again(
    terminal: Terminal, like: Path, cast: Cast, out: Path, *, source: str | None, device: str
) -> None:
    """Draw the picture of a recipe again.

    Raises:
        UsageError: the file holds no recipe, or base or cast are not those of the recipe.
    """
    from personae.cast import Strength
    from personae.generation import redraw
    from personae.pictures import Picture

    wanted = Picture.open(like).recipe
    for name, member in cast.members.items():
        if name in wanted.cast:
            member.strength = Strength.parse(wanted.cast[name].strength)
    precision = _precision_name(wanted.precision)
    base = open_base(terminal, source or wanted.base, cast, device=device, precision=precision)
    with cast.on(base), terminal.waiting("drawing"):
        picture = redraw(base, wanted, cast)
    path = _save(terminal, picture, out)
    terminal.say(f"Drawn again: [bold]{escape(tilde(path))}[/]")


def write_sheet(terminal: Terminal, drawn: Sequence[tuple[Path, Picture]], out: Path) -> Path:
    """Put pictures on one sheet beside them and return its path."""
    from personae.sheets import Panel, contact_sheet, save_sheet

    panels = [
        Panel(picture.image, picture.recipe.prompt, f"seed {picture.recipe.seed}")
        for _, picture in drawn
    ]
    path = save_sheet(contact_sheet(panels), free_path(out, "sheet"))
    terminal.tell("sheet", path=path)
    terminal.say(f"Contact sheet: [bold]{escape(tilde(path))}[/]")
    return path


def free_path(folder: Path, stem: str) -> Path:
    """Return folder/stem.png, with a number where that is taken: nothing is overwritten."""
    path, taken = folder / f"{stem}.png", 1
    while path.exists():
        taken += 1
        path = folder / f"{stem}-{taken}.png"
    return path


def _save(terminal: Terminal, picture: Picture, out: Path) -> Path:
    recipe = picture.recipe
    words = re.sub(r"\W+", "-", recipe.prompt.lower()).strip("-")[:SLUG_LENGTH].strip("-")
    path = picture.save(free_path(out, f"{words or 'picture'}-{recipe.seed}"))
    terminal.tell("picture", path=path, prompt=recipe.prompt, seed=recipe.seed)
    return path


def _precision_name(recorded: str) -> str:
    """Return the name `load_base` takes for the number format a recipe records."""
    from personae.devices import PRECISIONS

    names = {str(dtype).removeprefix("torch."): name for name, dtype in PRECISIONS.items()}
    return names.get(recorded, "auto")


def _refuse_changes(given: Sequence[str]) -> None:
    if given:
        raise UsageError(
            f"--like draws a picture by its own recipe, but '{given[0]}' is given too; leave one "
            "of the two out"
        )
