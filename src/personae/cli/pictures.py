"""What the drawing commands share: sampling options, a bar while drawing, files named by prompt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from personae.cli.options import Group, merged
from personae.cli.terminal import Terminal, tilde
from personae.core.files import free_path, prepare_folder
from personae.core.units import count

if TYPE_CHECKING:
    from personae.generation.cast import Cast
    from personae.generation.picture import Picture
    from personae.generation.sampler import Shot
    from personae.generation.settings import Sampling
    from personae.models.family import Family

ConfigOption = Annotated[
    Path | None, typer.Option(help="TOML file with sampling fields; options come first.")
]

Drawn = list[tuple[Path, "Picture"]]


def sampling_groups() -> Sequence[Group]:
    """Return how pictures are drawn, as a panel of options."""
    from personae.generation.settings import Sampling

    return [Group("Sampling", Sampling)]


def read_sampling(given: dict[str, Any], config: Path | None) -> Sampling:
    """Return how to draw: the file's fields, and over them the options'.

    Raises:
        UsageError: a key or value is wrong.
    """
    from personae.core.config import read_toml
    from personae.generation.settings import Sampling

    values = merged(read_toml(config) if config else {}, given)
    return Sampling.parse(values, where=str(config) if config else "sampling")


def draw_shots(
    terminal: Terminal,
    base: Family,
    shots: Sequence[Shot],
    sampling: Sampling,
    cast: Cast,
    *,
    out: Path,
    batch_size: int = 4,
    suffix: str = ".png",
) -> Drawn:
    """Draw `shots` with a bar, save each picture as soon as it is there, and return them."""
    from personae.generation.generate import Drawing, generate

    drawn: Drawn = []
    prepare_folder(out)
    with terminal.bars() as bars:
        for event in generate(base, shots, sampling, cast, batch_size=batch_size):
            if isinstance(event, Drawing):
                bars.show("drawing", event.done, event.total, f"{len(drawn)} of {len(shots)} done")
                terminal.tell("drawing", done=event.done, total=event.total)
            else:
                drawn.append((save(terminal, event, out, suffix), event))
    terminal.say(f"{count(len(drawn), 'picture')} in [bold]{escape(tilde(out))}[/]")
    return drawn


def save(terminal: Terminal, picture: Picture, out: Path, suffix: str = ".png") -> Path:
    """Write a picture under a name made from its prompt and seed, and return the path."""
    from personae.generation.picture_metadata import new_path, save_picture

    recipe = picture.recipe
    path = save_picture(picture, new_path(recipe, out, suffix))
    terminal.tell("picture", path=path, prompt=recipe.prompt, seed=recipe.seed)
    return path


def write_sheet(terminal: Terminal, drawn: Drawn, out: Path) -> Path:
    """Put pictures on one sheet beside them and return its path."""
    from personae.reports.sheets import Panel, contact_sheet, save_sheet

    panels = [
        Panel(picture.image, picture.recipe.prompt, f"seed {picture.recipe.seed}")
        for _, picture in drawn
    ]
    path = save_sheet(contact_sheet(panels), free_path(out, "sheet", ".png"))
    terminal.tell("sheet", path=path)
    terminal.say(f"Contact sheet: [bold]{escape(tilde(path))}[/]")
    return path
