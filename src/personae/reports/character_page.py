"""What the page about a trained character shows: pictures, loss curve, card, commands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from personae.artifacts.card import Card
from personae.characters.character import Character
from personae.core.units import count, duration, size
from personae.evaluation.suite import Suite
from personae.reports.html_page import Curve, Gallery, Page, Shown
from personae.training.events import Step, Validation
from personae.training.run_folder import RunFolder

KINDS = {
    "scene": ("Scenes", "The same character in other places."),
    "expression": ("Expressions", "The same face in other moods."),
    "medium": ("Media", "The same character in other media."),
}


def character_page(
    character: Character,
    card: Card,
    artifact: Path,
    suite: Suite,
    drawn: Sequence[Image.Image],
    untouched: Sequence[Image.Image],
    commands: Sequence[str],
) -> Page:
    """Return the page about a character that a run has learnt.

    Args:
        character: what was learnt from.
        card: the artifact's card; it says how it was trained.
        artifact: its file, in the run's folder.
        suite: the shots that were drawn.
        drawn: one picture for each shot.
        untouched: one picture of the class for each scene, by the base alone.
        commands: what to type next.
    """
    return Page(
        title=f"{card.character.name}, learnt from {count(card.training.pictures, 'picture')}",
        lead=f"{count(card.training.steps, 'step')} in {duration(card.training.seconds)} on "
        f"{card.training.device} made a file of {size(artifact.stat().st_size)}. Below, what the "
        "base then draws when it is asked for this character.",
        galleries=[
            _learnt_from(character),
            *_drawn_galleries(suite, drawn),
            _without(suite, untouched),
        ],
        curve=_curve_of(RunFolder(artifact.parent)),
        facts=_facts_of(card, artifact),
        commands=commands,
    )


def _learnt_from(character: Character) -> Gallery:
    """Return the pictures that were trained on."""
    shown = [
        Shown(each.image(), "", f"training picture: {each.caption or character.name}")
        for each in character.references
    ]
    kept = count(len(character.held_out), "other picture")
    return Gallery("Learnt from", f"All it was shown; {kept} kept back.", shown, small=True)


def _drawn_galleries(suite: Suite, images: Sequence[Image.Image]) -> list[Gallery]:
    """Return a gallery for each kind of shot."""
    galleries = []
    for kind, (heading, about) in KINDS.items():
        shown = [
            Shown(image, shot.id.replace("_", " "), f"drawn: {shot.prompt}")
            for shot, image in zip(suite.shots, images, strict=True)
            if shot.kind == kind
        ]
        if shown:
            galleries.append(Gallery(heading, about, shown))
    return galleries


def _without(suite: Suite, images: Sequence[Image.Image]) -> Gallery:
    """Return the same scenes by the base alone."""
    scenes = [shot for shot in suite.shots if shot.kind == "scene"]
    shown = [
        Shown(image, shot.id.replace("_", " "), f"the base alone: {shot.prompt}")
        for shot, image in zip(scenes, images, strict=True)
    ]
    about = "The same scenes and seeds by the untouched base, asked for the class alone."
    return Gallery("Without the character", about, shown, small=True)


def _curve_of(run: RunFolder) -> Curve:
    """Return the losses a run folder keeps."""
    events = run.events()
    checks = [event for event in events if isinstance(event, Validation)]
    return Curve(
        [(event.step, event.loss) for event in events if isinstance(event, Step)],
        [(event.step, event.loss) for event in checks],
        checks[-1].base if checks else None,
    )


def _facts_of(card: Card, artifact: Path) -> dict[str, str]:
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
