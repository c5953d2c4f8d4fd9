"""`personae demo`: the whole way once, from pictures to the comparison, without a network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from personae.cli.cast_options import load_cast, open_base
from personae.cli.commands.check import show_inspection
from personae.cli.commands.sheet import draw_sheet
from personae.cli.commands.study import follow
from personae.cli.commands.train import STOPPED, follow_run
from personae.cli.terminal import AsJson, Terminal, tilde

if TYPE_CHECKING:
    from PIL import Image

    from personae.evaluation.suite import Suite
    from personae.models.family import Family


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(demo)


def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path("demo"),
    character: Annotated[
        Path | None, typer.Option(help="Folder of pictures. Default: the example mira.")
    ] = None,
    base: Annotated[str | None, typer.Option(help="Base model. Default: the embedded one.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 300,
    compare_steps: Annotated[
        int, typer.Option(min=0, help="Steps of each technique in the comparison; 0: none.")
    ] = 100,
    suite: Annotated[
        str | None, typer.Option(help="Shots to draw. Default: those that fit the base.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check, train, draw, compare: one example character from pictures to a report to open.

    An interrupted demo goes on where it was; a finished one only draws anew.
    """
    from personae.characters.example import example_character

    terminal = Terminal(as_json)
    folder = character or example_character()
    _heading(terminal, 1, "Look the pictures over")
    from personae.characters.checks.inspection import inspect_folder

    show_inspection(terminal, inspect_folder(folder))
    _heading(terminal, 2, "Learn the character")
    artifact = learn(terminal, folder, base, steps, out / "run")
    _heading(terminal, 3, "Draw it where it has never been")
    page = present(terminal, folder, artifact, suite, out)
    terminal.tell("page", path=page)
    terminal.say(f"Page: [bold]{escape(tilde(page))}[/]; open it in a browser.")
    if compare_steps:
        _heading(terminal, 4, "Compare the techniques, each trained briefly")
        from personae.study.presets import brief_comparison
        from personae.study.run import pick_runner

        contest = brief_comparison(
            folder, out / "comparison", steps=compare_steps, base=base, suite=suite
        )
        follow(terminal, contest, pick_runner(contest), None)


def learn(terminal: Terminal, folder: Path, base: str | None, steps: int, run: Path) -> Path:
    """Train, or go on training, or take what is trained already; return the artifact's path.

    Raises:
        typer.Exit: the training was stopped by Ctrl-C.
    """
    from personae.study.presets import brief_training
    from personae.training.run_folder import RunFolder

    kept = RunFolder(run)
    if kept.result() is not None:
        terminal.say(f"{escape(tilde(run))} is trained already; delete it to train anew.")
    else:
        config = kept.config() if kept.is_begun else brief_training(folder, steps=steps, base=base)
        if follow_run(terminal, config, run, resume=kept.is_begun):
            raise typer.Exit(STOPPED)
    return run / kept.finished().artifact


def present(
    terminal: Terminal, folder: Path, artifact: Path, suite_name: str | None, out: Path
) -> Path:
    """Draw the character sheet, write the page, and return the page's path."""
    from personae.artifacts.card import read_card
    from personae.characters.character import Character
    from personae.core.files import write_text
    from personae.evaluation.settings import suite_for
    from personae.generation.settings import Sampling
    from personae.reports.character_page import character_page

    card = read_card(artifact)
    name = card.character.name
    cast = load_cast([f"{name}={artifact}"], None)
    base = open_base(terminal, None, cast)
    suite = suite_for(base.source, suite_name)
    with cast.on(base):
        _, drawn = draw_sheet(
            terminal, base, cast, name, suite, sampling=Sampling(), seed=0, out=out
        )
    pictures = [picture.image for _, picture in drawn]
    untouched = draw_class(terminal, base, suite, card.character.class_noun)
    page = character_page(
        Character.open(folder),
        card,
        artifact,
        suite,
        pictures,
        untouched,
        commands_for(name, artifact, drawn[0][0]),
    )
    path = out / "index.html"
    write_text(path, page)
    return path


def draw_class(
    terminal: Terminal, base: Family, suite: Suite, class_noun: str
) -> list[Image.Image]:
    """Return what the untouched base draws for the scenes, by the same seeds."""
    from personae.generation.generate import Drawing, generate
    from personae.generation.sampler import shots_of_prompts
    from personae.reports.character_page import prompts_without

    shots = shots_of_prompts(prompts_without(suite, class_noun))
    images: list[Image.Image] = []
    with terminal.bars() as bars:
        for event in generate(base, shots):
            if isinstance(event, Drawing):
                bars.show("drawing without the character", event.done, event.total)
            else:
                images.append(event.image)
    return images


def commands_for(name: str, artifact: Path, picture: Path) -> list[str]:
    """Return what to type next."""
    file = tilde(artifact)
    return [
        f'personae generate --cast {name}={file} "{{{name}}} in a garden" -n 4',
        f"personae generate --like {tilde(picture)} --cast {name}={file}",
        f"personae inspect {file}",
    ]


def _heading(terminal: Terminal, number: int, text: str) -> None:
    terminal.say(f"\n[bold]{number}. {text}[/]")
