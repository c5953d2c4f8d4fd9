"""How prompts are written: members in braces, braces of their own doubled, and what fits.

`{mira}` is a member of the cast, `{{` and `}}` are braces. Nothing here draws.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from personae.errors import UsageError
from personae.models.family import Family
from personae.models.text_tower import TextTower

logger = logging.getLogger(__name__)

_MARKS: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}")


def names_in(prompt: str) -> list[str]:
    """Return what stands in braces, in order; doubled braces are text."""
    return [match[1] for match in _MARKS.finditer(prompt) if match[1] is not None]


def filled(prompt: str, phrase_of: Callable[[str], str]) -> str:
    """Return the prompt with each name replaced by its phrase, and doubled braces made single."""
    return _MARKS.sub(
        lambda match: match[0][0] if match[1] is None else phrase_of(match[1]), prompt
    )


def literal(text: str) -> str:
    """Return a text of another tool as a prompt of ours: its braces are braces."""
    return text.replace("{", "{{").replace("}", "}}")


def check_length(
    base: Family, prompts: Iterable[str], phrase_of: Callable[[str], str], *, strict: bool = True
) -> None:
    """Warn of words that the text encoders of a base do not read, and refuse to lose a member.

    Args:
        base: with the words of the members in its vocabulary.
        prompts: as written.
        phrase_of: name -> how the text calls that member.
        strict: False warns of a lost member too, for pictures that were drawn so before.

    Raises:
        UsageError: a member is named behind the last token that is read.
    """
    for prompt in dict.fromkeys(prompts):
        for tower in base.towers:
            room = tower.length - 2  # the marks of begin and end
            count = len(tower.ids(filled(prompt, phrase_of)))
            if count <= room:
                continue
            lost = _lost(prompt, partial(_tokens, tower), room, phrase_of)
            said = f"the prompt has {count} tokens and the base reads {room}"
            if lost and strict:
                raise UsageError(
                    f"{said}; {{{lost}}} stands behind them and would not be drawn; name it "
                    "earlier, or shorten the prompt"
                )
            what = f"{{{lost}}} and the words after it are" if lost else "the words after them are"
            logger.warning("%s; %s not drawn: %s", said, what, " ".join(prompt.split())[:60])
            break


def _lost(
    prompt: str, length: Callable[[str], int], room: int, phrase_of: Callable[[str], str]
) -> str | None:
    """Return the first name that no longer fits whole; a name that stood before does not count."""
    seen: set[str] = set()
    for match in _MARKS.finditer(prompt):
        name = match[1]
        if name is None or name in seen:
            continue
        seen.add(name)
        if length(filled(prompt[: match.end()], phrase_of)) > room:
            return name
    return None


def _tokens(tower: TextTower, text: str) -> int:
    return len(tower.ids(text))
