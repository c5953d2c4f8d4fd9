"""A character's pictures as files of one folder, which opens as the same character anywhere.

A plain set lies in one folder. Repeats, loss weights and class pictures need words for them: such a
set lies in a folder for each kind, and a list of concepts in OneTrainer's form says which is which.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any, Final

from personae.characters.character import Character
from personae.characters.character_toml import FILE_NAME as CHARACTER_FILE
from personae.characters.character_toml import CharacterFile
from personae.characters.reference import Reference
from personae.core.config import to_toml

FOLDER: Final = "references"
CONCEPTS: Final = "concepts.json"

Content = Any  # the path of a file, or its bytes
_Kind = tuple[str, int, float]


def pictures_of(character: Character) -> Iterator[tuple[str, Content]]:
    """Yield (path from the folder's parent, content) of a folder that opens as this character."""
    learnt = (*character.references, *character.held_out)
    placed = [(("STANDARD", r.repeats, r.loss_weight), r) for r in learnt]
    placed += [(("PRIOR_PREDICTION", r.repeats, r.loss_weight), r) for r in character.prior]
    kinds: list[_Kind] = sorted({kind for kind, _ in placed}, reverse=True)
    plain = kinds == [("STANDARD", 1, 1.0)]
    places = {kind: "" if plain else f"{number:02d}/" for number, kind in enumerate(kinds, 1)}
    held_out = []
    for number, (kind, reference) in enumerate(placed, 1):
        yield from _members(reference, f"{FOLDER}/{places[kind]}", f"{number:03d}")
        if reference in character.held_out:
            held_out.append(f"{number:03d}{reference.path.suffix.lower()}")
    if not plain:
        concepts = [_concept(character.name, kind, places[kind]) for kind in kinds]
        yield f"{FOLDER}/{CONCEPTS}", json.dumps(concepts, indent=2).encode()
    about = CharacterFile(
        name=character.name,
        class_noun=character.class_noun,
        phrase=character.phrase,
        asymmetric=character.asymmetric,
        licence=character.licence,
        held_out=tuple(held_out),
    )
    yield f"{FOLDER}/{CHARACTER_FILE}", to_toml(about).encode()


def _members(reference: Reference, place: str, stem: str) -> Iterator[tuple[str, Content]]:
    yield f"{place}{stem}{reference.path.suffix.lower()}", reference.path
    if reference.caption:
        yield f"{place}{stem}.txt", reference.caption.encode()
    if reference.mask is not None and not reference.mask_inverted:
        yield f"{place}masks/{stem}{reference.mask.suffix.lower()}", reference.mask
    elif (upright_mask := reference.mask_image()) is not None and reference.mask is not None:
        upright = io.BytesIO()
        upright_mask.save(upright, "PNG")
        yield f"{place}masks/{stem}.png", upright.getvalue()


def _concept(name: str, kind: _Kind, place: str) -> dict[str, Any]:
    role, repeats, weight = kind
    return {
        "name": name,
        "path": place.rstrip("/"),
        "type": role,
        "balancing": float(repeats),
        "balancing_strategy": "REPEATS",
        "loss_weight": weight,
    }
