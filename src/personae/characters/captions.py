"""How a caption names the character, and how another name is put in its place."""

from __future__ import annotations

import re
from typing import Final

UNCAPTIONED: Final = "a picture of {phrase}"
"""Caption of a picture that has none; the plainest of the templates of Gal et al. 2022."""

PLACEHOLDERS: Final = ("{name}", "{character}", "[name]", "[trigger]")
"""What stands for the character in captions; those in brackets are A1111's and ai-toolkit's."""


def mention(name: str, class_noun: str | None, phrase: str | None) -> re.Pattern[str]:
    """Return a pattern of everything that names the character, the longest first.

    Args:
        name: name of the character; also as the placeholder `{name of the character}`.
        class_noun: what it is; "mira girl" and "girl mira" count as one mention.
        phrase: how the captions of this set name it.
    """
    exact = [re.escape(placeholder) for placeholder in (*PLACEHOLDERS, f"{{{name}}}")]
    words = [name]
    if class_noun:
        words += [f"{name} {class_noun}", f"{class_noun} {name}"]
    if phrase:
        words.append(phrase)
    words.sort(key=len, reverse=True)
    # Look-arounds instead of \b, because a phrase may begin or end with "<" or another sign.
    whole = [rf"(?<!\w){re.escape(text)}(?!\w)" for text in words]
    return re.compile("|".join(exact + whole), re.IGNORECASE)


def rename(caption: str | None, named: re.Pattern[str], phrase: str) -> str:
    """Return the caption with each mention replaced by `phrase`.

    A caption that neither mentions the character nor holds the phrase already (as captions of class
    pictures hold the class noun) gets the phrase in front; None gives `UNCAPTIONED`.
    """
    if caption is None:
        return UNCAPTIONED.replace("{phrase}", phrase)
    renamed, count = named.subn(lambda _: phrase, caption)
    said = re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", renamed, re.IGNORECASE)
    return renamed if count or said else f"{phrase}, {caption}"
