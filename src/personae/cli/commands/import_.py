"""`personae import`: a file of another tool as an artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from personae.cli.cast_options import DeviceOption, quiet_libraries
from personae.cli.output_files import refuse_overwriting
from personae.cli.terminal import AsJson, Terminal, tilde, typed
from personae.core.files import stem_of


def register(app: typer.Typer) -> None:
    """Add the command; `import` is a word of Python and cannot name a module."""
    app.command(name="import")(import_file)


def import_file(
    file: Annotated[Path, typer.Argument(help="LoRA, embedding, hypernetwork or checkpoint.")],
    base: Annotated[
        str, typer.Option(help="Base model it was made for: toon, a folder, a file or a hub id.")
    ] = "toon",
    out: Annotated[
        Path | None, typer.Option(help="File to write. Default: in the working folder.")
    ] = None,
    phrase: Annotated[
        str | None, typer.Option(help="How prompts name the character. Default: as the file says.")
    ] = None,
    class_noun: Annotated[
        str | None, typer.Option(help="What the character is: girl, robot, cat.")
    ] = None,
    device: DeviceOption = "auto",
    as_json: AsJson = False,
) -> None:
    """Turn a file of another tool into an artifact; its kind is found out by itself."""
    terminal = Terminal(as_json)
    from personae.artifacts.artifact import about
    from personae.formats.format import format_of
    from personae.models.load import load_base

    kind = format_of(file)
    quiet_libraries()
    with terminal.waiting("loading the base"):
        loaded = load_base(base, device=device, precision="fp32")
    with terminal.waiting("reading"):
        artifact = kind.read(file, loaded)
    stated = {"phrase": phrase, "class_noun": class_noun}
    artifact = about(artifact, **{key: value for key, value in stated.items() if value is not None})
    path = out or Path(artifact.file_name(stem_of(file)))
    refuse_overwriting(path)
    artifact.save(path)
    card = artifact.card
    terminal.tell("imported", path=path, format=kind.name, card=card.model_dump(mode="json"))
    terminal.say(f"{kind.title} as {artifact.technique}: [bold]{escape(tilde(path))}[/]")
    for name, note in card.notes.items():
        terminal.say(f"  [dim]{name}:[/] {escape(note)}")
    if phrase is None and card.character.phrase == file.stem:
        terminal.say(
            "The file does not say how prompts call it, so its name is taken; if another word was "
            "trained, import it with --phrase WORD."
        )
    terminal.say(f'Prompts say "{escape(card.character.phrase)}". Draw with')
    terminal.command(f'personae generate "{{it}} on a beach" --cast it={typed(path)} --base {base}')
