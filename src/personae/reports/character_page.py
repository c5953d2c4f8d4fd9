"""The page about a trained character: pictures, loss curve, card, and what to type next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from personae.artifacts.card import Card
from personae.artifacts.card_facts import card_facts
from personae.characters.character import Character
from personae.core.units import count, duration, size
from personae.evaluation.suite import Suite, spelled
from personae.reports.embedded_picture import ShownPicture, shown
from personae.reports.loss_curve import LossCurve, loss_plot
from personae.reports.page import render
from personae.reports.sheets import HEADINGS
from personae.training.run_folder import RunFolder

ABOUT = {
    "scene": "The same character in other places.",
    "expression": "The same face in other moods.",
    "medium": "The same character in other media.",
}


@dataclass(frozen=True, slots=True)
class Gallery:
    """Pictures under a heading; `small` ones are for looking over, not for looking at.

    Attributes:
        id: of the section, for links to it.
    """

    id: str
    heading: str
    about: str
    pictures: Sequence[ShownPicture]
    small: bool = False


def character_page(
    character: Character,
    card: Card,
    artifact: Path,
    suite: Suite,
    drawn: Sequence[Image.Image],
    untouched: Sequence[Image.Image],
    commands: Sequence[str],
) -> str:
    """Return the page about a character that a run has learnt, as HTML.

    Args:
        character: what was learnt from.
        card: the artifact's card; it says how it was trained.
        artifact: its file, in the run's folder.
        suite: the shots that were drawn.
        drawn: one picture for each shot.
        untouched: one picture for each of `prompts_without`, by the base alone.
        commands: what to type next.
    """
    run = RunFolder(artifact.parent)
    return render(
        "character.html",
        title=f"{card.character.name}, learnt from {count(card.training.pictures, 'picture')}",
        lead=f"{count(card.training.steps, 'step')} in {duration(card.training.seconds)} on "
        f"{card.training.device} made a file of {size(artifact.stat().st_size)}. Below, what the "
        "base then draws when it is asked for this character.",
        warnings=[f"Step {note.step}: {note.message}." for note in run.warnings()],
        galleries=[
            _learnt_from(character),
            *_drawn_galleries(suite, drawn, card.character.name),
            _without(suite, untouched, card.character.class_noun),
        ],
        plot=loss_plot(LossCurve.of(run)),
        facts={
            **card_facts(card),
            "file": f"{artifact.name}, {size(artifact.stat().st_size)}",
        },
        commands=commands,
    )


def prompts_without(suite: Suite, class_noun: str) -> list[str]:
    """Return what the base alone is asked for, to be shown beside the character: the scenes."""
    return suite.prompts(class_noun, "scene")


def _learnt_from(character: Character) -> Gallery:
    """Return the pictures that were trained on."""
    pictures = [
        shown(each.image(), "training picture", each.caption or character.name)
        for each in character.references
    ]
    kept = count(len(character.held_out), "other picture")
    return Gallery(
        "learnt-from", "Learnt from", f"All it was shown; {kept} kept back.", pictures, small=True
    )


def _drawn_galleries(suite: Suite, images: Sequence[Image.Image], name: str) -> list[Gallery]:
    """Return a gallery for each kind of shot."""
    galleries = []
    for kind, about in ABOUT.items():
        pictures = [
            shown(image, shot.id.replace("_", " "), spelled(shot.prompt, f"{{{name}}}"))
            for shot, image in zip(suite.shots, images, strict=True)
            if shot.kind == kind
        ]
        if pictures:
            galleries.append(Gallery(kind, HEADINGS[kind], about, pictures))
    return galleries


def _without(suite: Suite, images: Sequence[Image.Image], class_noun: str) -> Gallery:
    """Return the same scenes by the base alone."""
    asked = zip(suite.of_kind("scene"), prompts_without(suite, class_noun), images, strict=True)
    pictures = [shown(image, shot.id.replace("_", " "), prompt) for shot, prompt, image in asked]
    about = "The same scenes and seeds by the untouched base, asked for the class alone."
    return Gallery("without", "Without the character", about, pictures, small=True)
