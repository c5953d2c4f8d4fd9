"""The cast: names bound to trained characters, all on one loaded base at once.

`{mira}` in a prompt is the character bound to the name mira. Members stack, each with a strength
that may change over the sampling steps, so that one can fade into another.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import torch

from personae.artifacts.artifact import Artifact
from personae.artifacts.strength import Strength
from personae.core.registry import nearest
from personae.errors import ArtifactError, UsageError
from personae.generation.prompts import filled, names_in
from personae.models.family import Family
from personae.models.text import Text
from personae.models.text_tower import whole_word
from personae.techniques.technique import Technique

logger = logging.getLogger(__name__)

TEXTS_KEPT = 64  # encoded prompts; a quarter of a megabyte each


@dataclass(slots=True)
class Member:
    """One character of a cast.

    Attributes:
        artifact: what was learnt; `path` is where it was read from, if it was.
        strength: over the course of sampling.
        techniques: built for the base the cast is on; empty when it is on none.
        renamed: (word, word in its place) where another member brings the same word.
    """

    artifact: Artifact
    strength: Strength = field(default_factory=Strength)
    path: Path | None = None
    techniques: list[Technique] = field(default_factory=list)
    renamed: tuple[str, str] | None = None

    @property
    def phrase(self) -> str:
        """Return how prompts name this character."""
        phrase = self.artifact.card.character.phrase
        return phrase.replace(*self.renamed) if self.renamed else phrase


class Cast:
    """Names bound to members."""

    def __init__(self, members: Mapping[str, Member] | None = None) -> None:
        self.members: dict[str, Member] = dict(members or {})
        self._base: Family | None = None
        self._texts: dict[tuple[object, ...], Text] = {}

    @classmethod
    def load(cls, files: Mapping[str, str | Path], strengths: Mapping[str, str] = {}) -> Self:
        """Read artifacts: {"mira": "mira.lora.safetensors"}; strengths by the same names.

        Raises:
            ArtifactError: a file is missing or damaged.
            UsageError: a strength names no member, or is malformed.
        """
        for name in strengths:
            if name not in files:
                raise UsageError(
                    f"a strength is given for '{name}', who is not in the cast"
                    f" ({', '.join(files)}).{nearest(name, files)}"
                )
        return cls(
            {
                name: Member(
                    Artifact.load(path), Strength.parse(strengths.get(name, "1")), Path(path)
                )
                for name, path in files.items()
            }
        )

    @property
    def base_source(self) -> str | None:
        """Return the base that the first member was trained on; None if there is no member."""
        first = next(iter(self.members.values()), None)
        return first.artifact.card.base.source if first else None

    @contextmanager
    def on(self, base: Family) -> Iterator[Self]:
        """Put every member on `base` for the length of a `with` block."""
        self._base = base
        try:
            for name, member in self.members.items():
                self._enter(base, name, member)
            yield self
        finally:
            for member in reversed(self.members.values()):
                self._leave(member)
            self._base = None
            self._texts.clear()

    def add(self, name: str, artifact: Artifact, strength: str | float = 1.0) -> None:
        """Bind `name` to `artifact`, in place of whoever had it; takes effect at once."""
        with ExitStack() as stack:
            for overlay in self._base.overlays.values() if self._base else ():
                stack.enter_context(overlay.exchanging())
            self.remove(name)
            self.members[name] = Member(artifact, Strength.parse(strength))
            if self._base is not None:
                self._enter(self._base, name, self.members[name])

    def remove(self, name: str) -> None:
        """Let `name` go, if it is there; takes effect at once."""
        member = self.members.pop(name, None)
        if member is not None:
            self._leave(member)
            self._texts.clear()

    def _enter(self, base: Family, name: str, member: Member) -> None:
        try:
            member.techniques = member.artifact.build(base)
        except ArtifactError as error:
            raise ArtifactError(f"{member.path}: {error}" if member.path else str(error)) from None
        for technique in member.techniques:
            technique.strength = member.strength.at(0.0)
            if technique.names_character:
                self._give_word(base, name, member, technique)
            technique.inject()

    def _give_word(self, base: Family, name: str, member: Member, technique: Technique) -> None:
        """Give a technique a word of its own where another member brings the same one."""
        word = technique.phrase(name, "")

        def taken(word: str) -> bool:
            return any(tower.has_placeholder(word) for tower in base.towers)

        if not taken(word):
            return
        words = (f"<{name}{number}>" for number in ("", *range(2, 1000)))
        free = next(word for word in words if not taken(word))
        technique.rename_word(free)
        member.renamed = (word, free)
        logger.warning(
            "'%s' brings the word %s, which another member has; prompts call it {%s} or %s",
            name,
            word,
            name,
            free,
        )

    @staticmethod
    def _leave(member: Member) -> None:
        member.renamed = None
        for technique in reversed(member.techniques):
            if technique.injected:
                technique.eject()
        member.techniques = []

    @torch.no_grad()
    def encode(self, base: Family, spelt: str) -> Text:
        """Return a prompt encoded on `base`, at the strengths the members have now.

        The latest texts are kept: many pictures of one prompt, and the negative prompt of all, are
        encoded once for as long as what the text depends on stays the same.

        Args:
            base: where the techniques are.
            spelt: the prompt with its names spelt out, see `spell`.
        """
        learnt = tuple(
            (id(technique), technique.strength, *(p._version for p in technique.parameters()))
            for member in self.members.values()
            for technique in member.techniques
            if technique.trains_text
        )
        key = (base, spelt, learnt)
        text = self._texts.pop(key, None)
        self._texts[key] = base.encode_text([spelt]) if text is None else text
        if len(self._texts) > TEXTS_KEPT:
            del self._texts[next(iter(self._texts))]
        return self._texts[key]

    def mentioned(self, prompt: str) -> list[str]:
        """Return the members a prompt names in braces, or all of them if it names none.

        Raises:
            UsageError: a name in braces is not in the cast.
        """
        return self._in_braces(prompt) or list(self.members)

    def acting(self, prompt: str, negative_prompt: str) -> tuple[set[str], set[str]]:
        """Return the members that act on a prompt's row, and those that act on its negative row.

        A member that the negative prompt alone names acts there alone. It is named in braces or, if
        it brings a word of its own, by that word. All others act on both rows, as they always did.

        Raises:
            UsageError: a name in braces is not in the cast.
        """
        against = set(self._in_braces(negative_prompt))
        following = set(self._in_braces(prompt)) or self.members.keys() - against
        written = {
            name
            for name, member in self.members.items()
            if any(technique.names_character for technique in member.techniques)
            and re.search(whole_word(member.phrase), negative_prompt)
        }
        return following, following | against | written

    def spell(self, prompt: str) -> str:
        """Return the prompt with each {name} replaced by that character's phrase."""
        self._in_braces(prompt)
        return filled(prompt, self.phrase_of)

    def phrase_of(self, name: str) -> str:
        """Return how prompts name the member called `name`."""
        return self.members[name].phrase

    def _in_braces(self, prompt: str) -> list[str]:
        names = list(dict.fromkeys(names_in(prompt)))
        for name in names:
            if name not in self.members:
                cast = ", ".join(self.members) or "nobody"
                if not name.strip():
                    raise UsageError(
                        f"the prompt has braces without a name; the cast is {cast}, so write "
                        f"{{{next(iter(self.members), 'name')}}}, or leave the braces out"
                    )
                raise UsageError(
                    f"the prompt names {{{name}}}, who is not in the cast ({cast})."
                    f"{nearest(name, self.members)} Bind the name with --cast {name}=FILE, or "
                    f"write {{{{{name}}}}} for braces"
                )
        return names
