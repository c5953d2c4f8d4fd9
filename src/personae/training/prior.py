"""Class pictures for prior preservation: a person's own, or drawn by the base."""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from functools import partial

from personae.characters.character import Character
from personae.characters.reference import Reference
from personae.core.cache import default_folder, keep, spare_folder
from personae.core.files import safe_name
from personae.core.seeds import generator_for
from personae.generation.generate import drawn_before, generate
from personae.generation.picture import Picture
from personae.generation.sampler import Shot
from personae.generation.settings import Sampling
from personae.models.family import Family
from personae.training.events import Preparing
from personae.training.schedule import Schedule

logger = logging.getLogger(__name__)
ROWS = 4  # pictures drawn side by side


def mention_unused(character: Character, schedule: Schedule) -> None:
    """Say that a set brings class pictures which this run does not look at."""
    if character.prior and schedule.prior != "images":
        logger.warning(
            "%s: %s there and not used; --prior images learns from them",
            character.folder,
            f"{len(character.prior)} class pictures are"
            if len(character.prior) > 1
            else "1 class picture is",
        )


def class_references(
    base: Family, character: Character, schedule: Schedule, seed: int
) -> Generator[Preparing, None, Sequence[Reference]]:
    """Draw class pictures unless the character brings its own; returns references."""
    if character.prior:
        return character.prior
    return (yield from draw_prior(base, character.class_noun, schedule, seed))


def draw_prior(
    base: Family, class_noun: str, schedule: Schedule, seed: int
) -> Generator[Preparing, None, Sequence[Reference]]:
    """Draw class pictures with the untouched base, once per base and class; returns references."""
    kept = default_folder() / "class_pictures" / base.fingerprint
    folder = kept / f"{safe_name(class_noun)}-{seed}"
    caption = f"a {class_noun}"
    paths = [folder / f"{i:04d}.png" for i in range(schedule.prior_images)]
    shots = [
        Shot(caption, generator_for(seed, "class", i).initial_seed() % 2**31)
        for i in range(len(paths))
    ]
    missing = {i // ROWS for i, path in enumerate(paths) if not drawn_before(path, shots[i], base)}
    # Whole batches, whose last bits are those of the first time.
    again = [i for i in range(len(paths)) if i // ROWS in missing]
    drawn = 0
    for event in generate(base, [shots[i] for i in again], Sampling(steps=20), batch_size=ROWS):
        if isinstance(event, Picture):
            path = paths[again[drawn]]
            if not keep(partial(event.save, path)):
                paths[again[drawn]] = event.save(spare_folder() / path.parent.name / path.name)
            drawn += 1
            yield Preparing("drawing class pictures", drawn, len(again))
    return [Reference(path, caption) for path in paths]
