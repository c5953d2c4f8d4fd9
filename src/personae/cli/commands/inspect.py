"""`personae inspect`: what is in an artifact, a picture, a .persona file or a run folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from personae.cli.terminal import AsJson, Terminal, tilde, typed
from personae.core.units import count, size
from personae.errors import UsageError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="inspect")(inspect_file)


def inspect_file(
    file: Annotated[
        Path, typer.Argument(help="An artifact, a picture, a .persona file, or a run folder.")
    ],
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what an artifact, a picture, a .persona file or a run folder holds."""
    from personae.characters.image_files import SUFFIXES
    from personae.formats.persona import ENDING

    terminal = Terminal(as_json)
    if not file.exists():
        raise UsageError(f"{file}: does not exist; check the path")
    if file.is_dir():
        _show_run(terminal, file)
    elif file.suffix.lower() in SUFFIXES:
        _show_picture(terminal, file)
    elif file.suffix.lower() == ENDING:
        _show_persona(terminal, file)
    else:
        _show_artifact(terminal, file, tensors=tensors)


def _show_artifact(terminal: Terminal, file: Path, *, tensors: bool) -> None:
    from personae.artifacts.artifact import Artifact
    from personae.artifacts.card_facts import card_facts

    artifact = Artifact.load(file)
    card = artifact.card
    bytes_on_disk = file.stat().st_size
    shapes: dict[str, dict[str, Any]] = {
        name: {"shape": list(tensor.shape), "format": str(tensor.dtype).removeprefix("torch.")}
        for name, tensor in artifact.tensors.items()
    }
    terminal.tell(
        "artifact",
        path=file,
        bytes=bytes_on_disk,
        card=card.model_dump(mode="json"),
        tensors=shapes,
    )
    numbers = sum(tensor.numel() for tensor in artifact.tensors.values())
    formats = ", ".join(sorted({shape["format"] for shape in shapes.values()}))
    terminal.say(
        _facts(
            {
                "file": f"{tilde(file)} ({size(bytes_on_disk)})",
                **card_facts(card),
                "holds": f"{len(shapes):,} tensors, {numbers:,} values in {formats}",
            }
        )
    )
    if tensors:
        for name, shape in shapes.items():
            sides = " x ".join(map(str, shape["shape"]))
            terminal.say(f"  {escape(name)}  [dim]{sides} {shape['format']}[/]")


def _show_picture(terminal: Terminal, file: Path) -> None:
    from PIL import Image

    from personae.generation.picture_facts import recipe_facts
    from personae.generation.picture_metadata import read_recipe
    from personae.generation.redraw import artifacts_at_hand

    recipe = read_recipe(file)
    if recipe is None:
        _show_foreign_picture(terminal, file)
        return
    with Image.open(file) as image:
        width, height = image.size
    terminal.tell("recipe", path=file, recipe=recipe.model_dump(mode="json"))
    place = {"picture": f"{tilde(file)} ({width} x {height})"}
    terminal.say(_facts(place | recipe_facts(recipe)))
    terminal.say("Draw it again with")
    found = artifacts_at_hand(recipe, file)
    members = "".join(
        f" --cast {name}={typed(found.get(name, Path(member.file)))}"
        for name, member in recipe.cast.items()
    )
    terminal.command(f"personae generate --like {typed(file)}{members}")


def _show_foreign_picture(terminal: Terminal, file: Path) -> None:
    """Show the settings that another tool left in a picture."""
    from personae.generation.picture_facts import settings_facts
    from personae.generation.picture_metadata import read_settings

    settings = read_settings(file)
    terminal.tell("settings", path=file, settings=asdict(settings))
    sides = f" ({settings.width} x {settings.height})" if settings.width else ""
    terminal.say(_facts({"picture": f"{tilde(file)}{sides}"} | settings_facts(settings)))
    terminal.say("Another tool drew it. Draw something like it with")
    terminal.command(f"personae generate --like {typed(file)}")


def _show_persona(terminal: Terminal, file: Path) -> None:
    from personae.formats.persona import read_manifest

    manifest = read_manifest(file)
    terminal.tell("persona", path=file, manifest=manifest.model_dump(mode="json"))
    packed = {
        each.file: f"{each.technique} for {each.base}, strength {each.strength}"
        for each in manifest.artifacts
    }
    terminal.say(
        _facts(
            {
                "file": f"{tilde(file)} ({size(file.stat().st_size)})",
                "character": f"{manifest.name}, a {manifest.class_noun}",
                "licence": manifest.licence or "not said",
                "consent": manifest.consent or "not said",
                **packed,
                "holds": count(len(manifest.files), "file"),
                "hash": manifest.content_hash[:16] or "none (of an older version)",
            }
        )
    )
    terminal.say("Unpack it with")
    terminal.command(f"personae unpack {typed(file)}")


def _show_run(terminal: Terminal, folder: Path) -> None:
    from personae.training.run_folder import RunFolder

    run = RunFolder(folder)
    config, result, state = run.config(), run.result(), run.state()
    stored = result.model_dump(mode="json") if result else {}
    settings = config.model_dump(mode="json")
    terminal.tell("run", path=folder, **asdict(state), config=settings, result=stored)
    facts = {
        "run": tilde(folder),
        "character": str(config.character),
        "technique": f"{config.technique} on {config.base}, seed {config.seed}",
        "state": "finished" if result else "not finished",
        "step": f"{state.step} of {state.steps or '?'}"
        + ("" if state.loss is None else f", loss {state.loss:.4f}"),
    }
    if state.note:
        facts["verdict"] = state.note
    if result:
        facts["artifact"] = f"{folder / result.artifact} ({size(result.file_bytes)})"
    terminal.say(_facts(facts))
    if not result:
        terminal.say("Continue it with")
        terminal.command(f"personae train --resume {typed(folder)}")


def _facts(facts: Mapping[str, str]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, escape(value))
    return table
