"""`personae demo`: the whole way once, from pictures to a page, without a network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from personae.cli.check import show_inspection
from personae.cli.inspect import read_events
from personae.cli.loading import load_cast, open_base
from personae.cli.sheet import HEADINGS, draw_sheet, suite_for
from personae.cli.terminal import AsJson, Terminal, tilde
from personae.cli.train import STOPPED, follow_run
from personae.errors import UsageError
from personae.wording import count, duration, size

if TYPE_CHECKING:
    from PIL import Image

    from personae.artifact import Card
    from personae.character import Character
    from personae.families.base import Family
    from personae.pages import Curve, Gallery
    from personae.suites import Suite

EXAMPLE = Path("examples") / "mira"
BATCH_SIZE = 8


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
    suite: Annotated[
        str | None, typer.Option(help="Shots to draw. Default: those that fit the base.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check, train, draw: one example character from pictures to a page to open.

    An interrupted demo goes on where it was; a finished one only draws anew.
    """
    terminal = Terminal(as_json)
    folder = character or find_example()
    _heading(terminal, 1, "Look the pictures over")
    from personae.inspection import inspect_folder

    show_inspection(terminal, inspect_folder(folder))
    _heading(terminal, 2, "Learn the character")
    artifact = learn(terminal, folder, base, steps, out / "run")
    _heading(terminal, 3, "Draw it where it has never been")
    page = present(terminal, folder, artifact, suite, out)
    terminal.tell("page", path=page)
    terminal.say(f"\nOpen [bold]{escape(tilde(page))}[/] in a browser.")


def find_example() -> Path:
    """Return the folder of the example character.

    Raises:
        UsageError: it is not there, as when installed without the repository.
    """
    beside = Path(__file__).parents[3] / EXAMPLE  # src/personae/cli/demo.py in the repository
    for folder in (EXAMPLE, beside):
        if folder.is_dir():
            return folder
    raise UsageError(
        f"no {EXAMPLE} here; the example characters are in the repository, not in the installed "
        "package; run the demo there, or give pictures of your own with --character FOLDER"
    )


def learn(terminal: Terminal, folder: Path, base: str | None, steps: int, run: Path) -> Path:
    """Train, or go on training, or take what is trained already; return the artifact's path.

    Raises:
        typer.Exit: the training was stopped by Ctrl-C.
    """
    from personae.run_folder import RunFolder
    from personae.settings import RunConfig

    kept = RunFolder(run)
    result = kept.result()
    if result is None:
        values = {"character": folder, "schedule": {"steps": steps, "batch_size": BATCH_SIZE}}
        resume = kept.config_file.is_file()
        config = RunConfig.read(values | ({"base": base} if base else {}))
        if follow_run(terminal, kept.config() if resume else config, run, resume=resume):
            raise typer.Exit(STOPPED)
        result = kept.result()
    else:
        terminal.say(f"{escape(tilde(run))} is trained already; delete it to train anew.")
    return run / result["artifact"]


def present(
    terminal: Terminal, folder: Path, artifact: Path, suite_name: str | None, out: Path
) -> Path:
    """Draw the character sheet, write the page, and return the page's path."""
    from personae.artifact import read_card
    from personae.atomic import write_text
    from personae.character import Character
    from personae.pages import Page, render
    from personae.pictures import Sampling

    card = read_card(artifact)
    name = card.character.name
    cast = load_cast([f"{name}={artifact}"], None)
    base = open_base(terminal, None, cast)
    suite = suite_for(suite_name, base.source)
    with cast.on(base):
        _, drawn = draw_sheet(
            terminal, base, cast, name, suite, sampling=Sampling(), seed=0, out=out
        )
    pictures = [picture.image for _, picture in drawn]
    untouched = draw_class(terminal, base, suite, card.character.class_noun)
    page = Page(
        title=f"{name}, learnt from {count(card.training.pictures, 'picture')}",
        lead=f"{count(card.training.steps, 'step')} in {duration(card.training.seconds)} on "
        f"{card.training.device} made a file of {size(artifact.stat().st_size)}. Below, what the "
        "base then draws when it is asked for this character.",
        galleries=[
            learnt_from(Character.open(folder)),
            *drawn_galleries(suite, pictures),
            without(suite, untouched),
        ],
        curve=curve_of(artifact.parent),
        facts=facts_of(card, artifact),
        commands=commands_for(name, artifact, drawn[0][0]),
    )
    path = out / "index.html"
    write_text(path, render(page))
    return path


def draw_class(
    terminal: Terminal, base: Family, suite: Suite, class_noun: str
) -> list[Image.Image]:
    """Return what the untouched base draws for the scenes, by the same seeds."""
    from personae import generation
    from personae.suites import spelled

    shots = [
        generation.Shot(spelled(shot.prompt, class_noun), 0)
        for shot in suite.shots
        if shot.kind == "scene"
    ]
    images: list[Image.Image] = []
    with terminal.bars() as bars:
        for event in generation.generate(base, shots):
            if isinstance(event, generation.Drawing):
                bars.show("drawing without the character", event.done, event.total)
            else:
                images.append(event.image)
    return images


def learnt_from(character: Character) -> Gallery:
    """Return the pictures that were trained on."""
    from personae.pages import Gallery, Shown

    shown = [
        Shown(each.image(), "", f"training picture: {each.caption or character.name}")
        for each in character.references
    ]
    kept = count(len(character.held_out), "other picture")
    return Gallery("Learnt from", f"All it was shown; {kept} kept back.", shown, small=True)


def drawn_galleries(suite: Suite, images: Sequence[Image.Image]) -> list[Gallery]:
    """Return a gallery for each kind of shot."""
    from personae.pages import Gallery, Shown

    about = {
        "scene": "The same character in other places.",
        "expression": "The same face in other moods.",
        "medium": "The same character in other media.",
    }
    galleries = []
    for kind, heading in HEADINGS.items():
        shown = [
            Shown(image, shot.id.replace("_", " "), f"drawn: {shot.prompt}")
            for shot, image in zip(suite.shots, images, strict=True)
            if shot.kind == kind
        ]
        if shown:
            galleries.append(Gallery(heading, about[kind], shown))
    return galleries


def without(suite: Suite, images: Sequence[Image.Image]) -> Gallery:
    """Return the same scenes by the base alone."""
    from personae.pages import Gallery, Shown

    scenes = [shot for shot in suite.shots if shot.kind == "scene"]
    shown = [
        Shown(image, shot.id.replace("_", " "), f"the base alone: {shot.prompt}")
        for shot, image in zip(scenes, images, strict=True)
    ]
    about = "The same scenes and seeds by the untouched base, asked for the class alone."
    return Gallery("Without the character", about, shown, small=True)


def curve_of(run: Path) -> Curve:
    """Return the losses a run folder keeps."""
    from personae.pages import Curve

    events = read_events(run)
    checks = [event for event in events if event["event"] == "validation"]
    return Curve(
        [(event["step"], event["loss"]) for event in events if event["event"] == "step"],
        [(event["step"], event["loss"]) for event in checks],
        checks[-1]["base"] if checks else None,
    )


def facts_of(card: Card, artifact: Path) -> dict[str, str]:
    """Return what the card says, in words."""
    done = card.training
    return {
        "character": f"{card.character.name}, a {card.character.class_noun}; prompts say "
        f'"{card.character.phrase}"',
        "technique": ", ".join(record.name for record in card.techniques),
        "base": f"{card.base.source} ({card.base.fingerprint})",
        "training": f"{count(done.steps, 'step')} of {done.batch_size}, seed {done.seed}",
        "time": f"{duration(done.seconds)} on {done.device}",
        "peak memory": size(done.peak_bytes),
        "trained": count(done.parameters, "number"),
        "file": f"{artifact.name}, {size(artifact.stat().st_size)}",
    }


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
