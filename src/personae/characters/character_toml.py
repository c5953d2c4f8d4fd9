"""`character.toml`: what a folder of pictures cannot say of itself."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final, Self

from pydantic import Field, field_validator

from personae.core.config import Config, read_toml
from personae.errors import CharacterError, UsageError

FILE_NAME: Final = "character.toml"


class CharacterFile(Config):
    """The fields of `character.toml`, all of them optional."""

    name: str | None = None
    """How prompts call the character: one word, as in "{mira} on a beach"."""
    class_noun: str | None = Field(default=None, min_length=1)
    """What the character is, in one or two words: girl, robot, cat."""
    phrase: str | None = Field(default=None, min_length=1)
    """How the captions of this folder name the character, for example "sks girl"."""
    asymmetric: bool = False
    """The character has a left and a right side (a scar, an eye patch); flipping is refused."""
    licence: str | None = None
    """Terms under which the pictures may be used."""
    held_out: tuple[str, ...] | None = None
    """File names of the pictures never to train on; without it a fifth is set apart."""

    @field_validator("name")
    @classmethod
    def _one_word(cls, name: str | None) -> str | None:
        if name is not None and not name.isidentifier():
            raise ValueError("expected one word of letters, digits and _, as in {mira}")
        return name

    @classmethod
    def beside(cls, folder: Path) -> Self:
        """Return what `character.toml` in `folder` says, or nothing but defaults.

        Raises:
            CharacterError: unreadable, no TOML, an unknown key or a wrong value.
        """
        path = folder / FILE_NAME
        try:
            return cls.parse(read_toml(path), where=str(path)) if path.is_file() else cls()
        except UsageError as error:
            raise CharacterError(str(error)) from None


def as_name(text: str) -> str:
    """Return `text` as a name that prompts can use: "3 Mira-Lou" gives "mira_lou"."""
    word = re.sub(r"\W+", "_", text.lower()).strip("_").lstrip("0123456789_")
    return word or "character"


def write(folder: Path, name: str, class_noun: str | None, phrase: str | None) -> str:
    """Return the text of a `character.toml` with each field explained."""
    noun = f"class_noun = {_quoted(class_noun)}" if class_noun else '# class_noun = "girl"'
    said = f"phrase = {_quoted(phrase)}" if phrase else f'# phrase = "{name}"'
    fill_in = "" if class_noun else "  # fill in"
    return (
        f"# The character in {folder.name}/. Lines that begin with # are not in force.\n\n"
        '# How prompts call it, one word: "{' + name + '} on a beach".\n'
        f"name = {_quoted(name)}\n\n"
        "# What it is, in one or two words: girl, robot, cat.\n"
        f"{noun}{fill_in}\n\n"
        "# How the captions of this folder name it, if not by its name.\n"
        f"{said}\n\n"
        "# true if left and right differ (a scar, an eye patch): flipping is then refused.\n"
        "asymmetric = false\n\n"
        "# Terms under which the pictures may be used.\n"
        '# licence = "CC BY 4.0"\n\n'
        "# Pictures never to train on; without this line a fifth is set apart by itself.\n"
        '# held_out = ["a.png"]\n'
    )


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
