"""Starts a `character.toml` for a folder, from what its layout and captions already say."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from personae.characters import character_toml
from personae.characters.character import read_dataset
from personae.characters.character_toml import as_name
from personae.characters.reference import Reference
from personae.core import files
from personae.errors import CharacterError, UsageError

CLASS_NOUNS: Final = frozenset(
    {"girl", "boy", "woman", "man", "child", "person", "lady", "guy", "robot", "cat", "kitten"}
    | {"dog", "puppy", "fox", "rabbit", "bear", "bird", "dragon", "monster", "creature", "horse"}
    | {"mouse", "owl", "penguin", "panda", "lion", "tiger", "wolf", "dinosaur", "alien", "doll"}
    | {"toy", "knight", "witch", "wizard", "princess", "prince", "pirate", "elf", "fairy", "ghost"}
    | {"vampire", "zombie", "mermaid", "astronaut", "superhero"}
)
"""Words that say what a character is, looked for in captions."""

_CLEAR_MAJORITY: Final = 0.6


def init_character(
    folder: str | Path,
    name: str | None = None,
    class_noun: str | None = None,
    *,
    force: bool = False,
) -> Path:
    """Write `character.toml` into a folder of pictures and return its path.

    Args:
        folder: where the pictures are.
        name: one word; by default from the layout or the folder's name.
        class_noun: what the character is; by default from the layout or, where most captions
            agree, from them. Otherwise the line is left to fill in.
        force: replace an existing file.

    Raises:
        CharacterError: the folder has no pictures, or the file exists.
        UsageError: `name` is not one word.
    """
    home = Path(folder).expanduser()
    reading = read_dataset(home)
    home = home if home.is_dir() else home.parent
    path = home / character_toml.FILE_NAME
    if path.exists() and not force:
        raise CharacterError(f"{path}: exists already; edit it, or replace it with --force")
    if name is not None and not name.isidentifier():
        raise UsageError(f"name is '{name}'; expected one word of letters, digits and _")
    name = name or as_name(reading.name or home.resolve().name)
    noun = class_noun or reading.class_noun or _noun_in(reading.references)
    files.write_text(path, character_toml.write(home, name, noun, reading.phrase))
    return path


def _noun_in(references: Iterable[Reference]) -> str | None:
    """Return the class noun that most captions share, or None if they do not agree."""
    captions = [r.caption.lower() for r in references if r.caption is not None]
    counts = Counter(
        noun for caption in captions for noun in set(re.findall(r"\w+", caption)) & CLASS_NOUNS
    )
    first, second = ([*counts.most_common(2), ("", 0), ("", 0)])[:2]
    clear = first[1] >= _CLEAR_MAJORITY * len(captions) and first[1] >= 2 * second[1]
    return first[0] if captions and clear and first[0] else None
