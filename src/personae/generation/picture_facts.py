"""What a picture says of itself, in words for a person."""

from __future__ import annotations

from personae.generation.infotext import Settings
from personae.generation.recipe import Recipe


def recipe_facts(recipe: Recipe) -> dict[str, str]:
    """Return {what: in words} of a recipe, in the order to show it."""
    cast = {
        f"cast {name}": f"{member.file} at strength {member.strength} ({member.content_hash[:12]})"
        for name, member in recipe.cast.items()
    }
    sampling = ", ".join(
        f"{name.replace('_', ' ')} {value}"
        for name, value in recipe.sampling.model_dump().items()
        if value not in (None, "")
    )
    return {
        "prompt": recipe.prompt,
        "seed": str(recipe.seed),
        **cast,
        "sampling": sampling,
        "base": f"{recipe.base} ({recipe.fingerprint}) in {recipe.precision}",
        "batch": f"row {recipe.row + 1} of {len(recipe.batch)}",
        "drawn by": f"personae {recipe.version}",
    }


def settings_facts(settings: Settings) -> dict[str, str]:
    """Return {what: in words} of another tool's settings, in the order to show it."""
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
    return {"prompt": settings.prompt, **known}
