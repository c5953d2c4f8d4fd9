"""Drawing a picture again: its recipe, the artifacts it names, and the same bytes."""

from __future__ import annotations

from pathlib import Path

from personae.artifacts.artifact import Artifact
from personae.artifacts.card import read_card
from personae.artifacts.strength import Strength
from personae.core.devices import PRECISIONS
from personae.errors import ArtifactError, UsageError
from personae.generation.cast import Cast, Member
from personae.generation.generate import draw
from personae.generation.picture import Picture
from personae.generation.recipe import Recipe
from personae.generation.sampler import Shot
from personae.models.acceleration.choice import setting
from personae.models.family import Family
from personae.models.weights.quantised import QUANTISED


def artifacts_at_hand(recipe: Recipe, picture: Path) -> dict[str, Path]:
    """Return where the artifacts of a recipe are, by the names of its cast, as far as found.

    Looked for beside the picture, in the working folder and in the run folders of `runs/`. What a
    file is called is not enough: it must have the recorded hash.
    """
    places = [picture.parent, Path(), *sorted(Path("runs").glob("*/"))]
    found: dict[str, Path] = {}
    for name, record in recipe.cast.items():
        for file in (place / Path(record.file).name for place in places):
            try:
                if file.is_file() and record.is_of(read_card(file)):
                    found.setdefault(name, file)
            except ArtifactError:  # of another kind, or damaged: not the one looked for
                continue
    return found


def cast_for(recipe: Recipe, given: Cast, picture: Path) -> dict[str, Path]:
    """Make a cast that of a recipe; return the files of the members that were found for it.

    Members that `given` lacks are taken from the artifacts at hand, and all get the recorded
    strengths. Who is still missing is left to `redraw`, which says so.

    Args:
        recipe: of the picture to draw again.
        given: the cast as far as it is known; it is changed.
        picture: the file the recipe was read from.

    Raises:
        ArtifactError: a file found is damaged.
    """
    found = {
        name: file
        for name, file in artifacts_at_hand(recipe, picture).items()
        if name not in given.members
    }
    for name, file in found.items():
        given.members[name] = Member(Artifact.load(file), path=file)
    for name, member in given.members.items():
        if name in recipe.cast:
            member.strength = Strength.parse(recipe.cast[name].strength)
    return found


def precision_for(recipe: Recipe) -> str:
    """Return the name `load_base` takes for the number format a recipe records."""
    names = {str(dtype).removeprefix("torch."): name for name, dtype in PRECISIONS.items()}
    usual = recipe.precision if recipe.precision in QUANTISED else "auto"
    return names.get(recipe.precision, usual)


def redraw(base: Family, wanted: Recipe, cast: Cast) -> Picture:
    """Draw the picture of a recipe again; the same machine gives the same bytes.

    Raises:
        UsageError: base, its precision, or the cast and its strengths are not those of the recipe.
    """
    if base.fingerprint != wanted.fingerprint:
        raise UsageError(
            f"the picture was drawn on base '{wanted.base}' ({wanted.fingerprint}); the loaded "
            f"base is '{base.source}' ({base.fingerprint}); load that one"
        )
    if base.precision != wanted.precision:
        raise UsageError(
            f"the picture was drawn in {wanted.precision}; the loaded base is in "
            f"{base.precision}; load it with the other --precision"
        )
    for name in cast.members:
        if name not in wanted.cast:
            raise UsageError(f"the picture was drawn without '{name}'; take it out of the cast")
    for name, record in wanted.cast.items():
        member = cast.members.get(name)
        if member is None or not record.is_of(member.artifact.card):
            raise UsageError(
                f"the picture was drawn with '{name}' from {record.file} "
                f"({record.content_hash[:12]}); give that file with --cast {name}=FILE"
            )
        if str(member.strength) != record.strength:
            raise UsageError(
                f"the picture was drawn with '{name}' at strength {record.strength}; here it is "
                f"{member.strength}; give it the same"
            )
    shots = [Shot(row.prompt, row.seed) for row in wanted.batch]
    base = base.allowing(setting(",".join(wanted.acceleration) or "none"))
    pictures = draw(base, shots, wanted.sampling, cast, batch_size=len(shots), strict=False)
    return pictures[wanted.row]
