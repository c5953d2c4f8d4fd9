"""Drawing a picture again from its recipe."""

from __future__ import annotations

from personae.errors import UsageError
from personae.generation.cast import Cast
from personae.generation.generate import draw
from personae.generation.picture import Picture
from personae.generation.recipe import Recipe
from personae.generation.sampler import Shot
from personae.models.acceleration.choice import setting
from personae.models.family import Family


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
        if member is None or member.artifact.card.content_hash != record.content_hash:
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
    return draw(base, shots, wanted.sampling, cast, batch_size=len(shots))[wanted.row]
