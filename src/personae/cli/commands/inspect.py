"""`personae inspect`: what is in an artifact, a picture, a .persona file or a run folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from personae.cli.terminal import AsJson, Terminal, tilde, typed
from personae.core.units import count, duration, size
from personae.errors import UsageError

if TYPE_CHECKING:
    from personae.artifacts.card import Card

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp"})
PERSONA = ".persona"
# Longer lists of names in the settings of a technique are told as counts.
MOST_NAMES = 4


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
    terminal = Terminal(as_json)
    if not file.exists():
        raise UsageError(f"{file}: does not exist; check the path")
    if file.is_dir():
        _show_run(terminal, file)
    elif file.suffix.lower() in PICTURES:
        _show_picture(terminal, file)
    elif file.suffix.lower() == PERSONA:
        _show_persona(terminal, file)
    else:
        _show_artifact(terminal, file, tensors=tensors)


def _show_artifact(terminal: Terminal, file: Path, *, tensors: bool) -> None:
    from personae.artifacts.artifact import Artifact

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
                "character": f"{card.character.name}, a {card.character.class_noun}; "
                f'prompts say "{card.character.phrase}"',
                **_settings(card),
                "base": f"{card.base.source} ({card.base.family}, {card.base.fingerprint})",
                "training": _training(card),
                **{name: f"{value:.4g}" for name, value in card.metrics.items()},
                **card.notes,
                "holds": f"{len(shapes):,} tensors, {numbers:,} numbers in {formats}",
                "sha256": card.content_hash,
                "card": "covered by a hash, and as it was saved"
                if card.sealed
                else "of an older format: no hash covers it, so changes of it would not be seen",
            }
        )
    )
    if tensors:
        for name, shape in shapes.items():
            sides = " x ".join(map(str, shape["shape"]))
            terminal.say(f"  {escape(name)}  [dim]{sides} {shape['format']}[/]")


def _settings(card: Card) -> dict[str, str]:
    """Return each technique with the settings that have a value."""
    return {
        record.name: ", ".join(
            f"{key} {_shortened(value)}"
            for key, value in record.config.items()
            if value is not None
        )
        for record in card.techniques
    }


def _shortened(value: object) -> object:
    """Return `value`, or how many names of each network and kind a long list of layers has.

    A kind is the last part of a dotted name that is no number: `to_out` of `attn1.to_out.0`.
    """
    if not isinstance(value, list) or len(value) <= MOST_NAMES:
        return value
    if not all(isinstance(each, str) and "." in each for each in value):
        return value
    kinds: dict[str, Counter[str]] = {}
    for name in value:
        network, *parts = name.split(".")
        kind = next((part for part in reversed(parts) if not part.isdigit()), network)
        kinds.setdefault(network, Counter())[kind] += 1
    told = (
        f"{counts.total()} of {network}: "
        + ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
        for network, counts in kinds.items()
    )
    return f"{len(value)} ({'; '.join(told)})"


def _training(card: Card) -> str:
    done = card.training
    if not done.steps:
        return "unknown"
    rate = done.schedule.get("learning_rate")
    at = "" if rate is None else f" at a learning rate of {rate:g}"
    return (
        f"{done.steps} steps of {done.batch_size} on {count(done.pictures, 'picture')}{at}, seed "
        f"{done.seed}; {duration(done.seconds)} on {done.device}, {size(done.peak_bytes)} at most"
    )


def _show_picture(terminal: Terminal, file: Path) -> None:
    from PIL import Image

    from personae.generation.picture_metadata import read_recipe
    from personae.generation.redraw import artifacts_at_hand

    recipe = read_recipe(file)
    if recipe is None:
        _show_foreign_picture(terminal, file)
        return
    with Image.open(file) as image:
        width, height = image.size
    terminal.tell("recipe", path=file, recipe=recipe.model_dump(mode="json"))
    cast = {
        f"cast {name}": f"{member.file} at strength {member.strength} ({member.content_hash[:12]})"
        for name, member in recipe.cast.items()
    }
    drawing = ", ".join(
        f"{name.replace('_', ' ')} {value}"
        for name, value in recipe.sampling.model_dump().items()
        if value not in (None, "")
    )
    terminal.say(
        _facts(
            {
                "picture": f"{tilde(file)} ({width} x {height})",
                "prompt": recipe.prompt,
                "seed": str(recipe.seed),
                **cast,
                "sampling": drawing,
                "base": f"{recipe.base} ({recipe.fingerprint}) in {recipe.precision}",
                "batch": f"row {recipe.row + 1} of {len(recipe.batch)}",
                "drawn by": f"personae {recipe.version}",
            }
        )
    )
    terminal.say("Draw it again with")
    found = artifacts_at_hand(recipe, file)
    members = "".join(
        f" --cast {name}={typed(found.get(name, Path(member.file)))}"
        for name, member in recipe.cast.items()
    )
    terminal.command(f"personae generate --like {typed(file)}{members}")


def _show_foreign_picture(terminal: Terminal, file: Path) -> None:
    """Show the settings that another tool left in a picture."""
    from personae.generation.picture_metadata import read_settings

    settings = read_settings(file)
    terminal.tell("settings", path=file, settings=asdict(settings))
    named = {
        "negative": settings.negative_prompt,
        "seed": settings.seed,
        "steps": settings.steps,
        "guidance": settings.guidance_scale,
        "sampler": settings.sampler,
        "model": settings.model,
        **settings.extra,
    }
    known = {name: str(value) for name, value in named.items() if value not in (None, "")}
    sides = f" ({settings.width} x {settings.height})" if settings.width else ""
    terminal.say(_facts({"picture": f"{tilde(file)}{sides}", "prompt": settings.prompt, **known}))
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
            }
        )
    )
    terminal.say("Unpack it with")
    terminal.command(f"personae unpack {typed(file)}")


def _show_run(terminal: Terminal, folder: Path) -> None:
    from personae.training.events import MonitorNote, Step
    from personae.training.run_folder import RunFolder

    run = RunFolder(folder)
    config, result = run.config(), run.result()
    events = run.events()
    step = next((event for event in reversed(events) if isinstance(event, Step)), None)
    state = {
        "finished": result is not None,
        "step": step.step if step else 0,
        "steps": step.steps if step else config.schedule.steps,
        "loss": step.loss if step else None,
    }
    stored = result.model_dump(mode="json") if result else {}
    settings = config.model_dump(mode="json")
    terminal.tell("run", path=folder, **state, config=settings, result=stored)
    notes = [event.message for event in events if isinstance(event, MonitorNote)]
    facts = {
        "run": tilde(folder),
        "character": str(config.character),
        "technique": f"{config.technique} on {config.base}, seed {config.seed}",
        "state": "finished" if result else "not finished",
        "step": f"{state['step']} of {state['steps'] or '?'}"
        + (f", loss {state['loss']:.4f}" if step else ""),
    }
    if notes:
        facts["verdict"] = notes[-1]
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
