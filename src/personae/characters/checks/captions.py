"""What is wrong with captions: too long, or holding what should be learnt as the character."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from personae.characters import captions
from personae.characters.checks.finding import Finding
from personae.characters.reference import Reference

MAX_TOKENS: Final = 77
"""What a CLIP text encoder reads, start and end marks included; the rest is cut off."""

REPEATED: Final = 0.8
"""Share of captions from which on a phrase counts as always there."""

FEWEST: Final = 4
"""With fewer captions nothing can be said about repetition."""

Tokenizer = Callable[[str], Sequence[int]]

_STOP_WORDS: Final = frozenset(
    {"a", "an", "and", "as", "at", "by", "for", "from", "has", "have", "he", "her", "his", "in"}
    | {"is", "it", "its", "of", "on", "she", "that", "the", "their", "them", "they", "this", "to"}
    | {"wears", "wearing", "while", "who", "with", "s", "near", "under", "over", "behind", "before"}
    | {"beside", "through", "into", "inside", "outside", "front", "between", "against", "around"}
)
_IDENTITY: Final = re.compile(
    r"\b((?:hair|eye|skin|freckle|beard|moustache|mustache|scar|tattoo|eyebrow|ear|nose|lip|face"
    r"|horn|tail|wing|fur|feather|antenna|braid|ponytail|pigtail|bob|bun|fringe|mohawk|afro|curl"
    r"|glass|hat|cap|hood|hoodie|coat|jacket|shirt|t-shirt|dress|skirt|trouser|pants|jean|boot|shoe"
    r"|scarf|glove|uniform|armou?r|cape|cloak|necklace|earring|bow|belt|sock|sweater|suit)(?:s|es)?"
    r"|blond|blonde|brunette|redhead|ginger|bald|bearded|freckled|tanned|\w+-haired|\w+-eyed"
    r"|\w+-skinned)\b",
    re.IGNORECASE,
)
_INNATE: Final = re.compile(
    r"\b(hair|eyes?|skin|freckles?|\w+-haired|\w+-eyed|\w+-skinned|blonde?|brunette|redhead|bald)\b",
    re.IGNORECASE,
)
_PLACEHOLDER: Final = re.compile(r"\{[^{}]*\}")
_LONGEST_PHRASE: Final = 4


@dataclass(frozen=True, slots=True)
class Subject:
    """Who the captions are about.

    Attributes:
        mention: pattern of everything that names the character.
        phrase: a name of usual length, for counting tokens.
        class_noun: what the character is, or None.
    """

    mention: re.Pattern[str]
    phrase: str
    class_noun: str | None

    def named_in(self, caption: str) -> str:
        """Return the caption with the character named by `phrase`."""
        return captions.rename(caption, self.mention, self.phrase)

    def taken_from(self, caption: str) -> str:
        """Return the caption without any mention of the character."""
        return self.mention.sub(" ", caption)


@dataclass(frozen=True, slots=True)
class Repeated:
    """A run of words that stands in most captions.

    Attributes:
        words: the words, in lower case.
        count: number of captions that hold them.
        identity: they describe the looks or clothes of the character.
    """

    words: str
    count: int
    identity: bool


def of_captions(
    references: Sequence[Reference],
    subject: Subject,
    home: Path,
    tokenizer: Tokenizer | None,
) -> Iterator[Finding]:
    """Yield what is wrong with the captions; `home` stands for all of them together."""
    captioned = [(r, r.caption) for r in references if r.caption is not None]
    yield from _of_missing(references, home)
    for reference, caption in captioned:
        yield from _of_length(reference, subject, tokenizer)
        unknown = _PLACEHOLDER.findall(subject.taken_from(caption))
        if unknown:
            yield Finding(
                "warning",
                "placeholder",
                reference.path,
                f"the caption holds {unknown[0]}, which stands for nothing here; write "
                "{character} for the character",
            )
    rest = [subject.taken_from(caption) for _, caption in captioned]
    always: set[str] = set()
    for phrase in repeated_phrases(rest, [subject.class_noun or ""]):
        always.update(phrase.words.split())
        yield _of_repetition(phrase, len(captioned), home)
    for (reference, _), text in zip(captioned, rest, strict=True):
        words = [word for word in innate_words(text) if word not in always]
        if words:
            yield Finding(
                "note",
                "identity-word",
                reference.path,
                f"the caption describes {', '.join(words)}; what never changes is better left "
                "unsaid, so that the name of the character comes to mean it",
            )


def count_tokens(caption: str, tokenizer: Tokenizer | None) -> int:
    """Return the number of tokens of a caption, start and end marks included.

    Without a tokenizer it is an estimate: a token per sign and per eight letters of a word, which
    suits CLIP's vocabulary of common English words.
    """
    if tokenizer is not None:
        return len(tokenizer(caption))
    pieces = re.findall(r"\w+|[^\w\s]", caption)
    return 2 + sum(-(-len(piece) // 8) for piece in pieces)


def repeated_phrases(captions: Sequence[str], ignored: Sequence[str]) -> list[Repeated]:
    """Return the longest runs of words that stand in at least `REPEATED` of the captions.

    Args:
        captions: the captions, the mention of the character taken out.
        ignored: words that belong there, such as the class noun.
    """
    if len(captions) < FEWEST:
        return []
    skipped = _STOP_WORDS | {word.lower() for word in ignored}
    counts = Counter(phrase for caption in captions for phrase in _phrases(caption, skipped))
    common = {p: n for p, n in counts.items() if n >= REPEATED * len(captions)}
    longest = [p for p in common if not any(p != q and f" {p} " in f" {q} " for q in common)]
    return [
        Repeated(phrase, common[phrase], _IDENTITY.search(phrase) is not None)
        for phrase in sorted(longest)
    ]


def innate_words(caption: str) -> list[str]:
    """Return the words of a caption that describe what a character is born with."""
    return sorted({match.group(0).lower() for match in _INNATE.finditer(caption)})


def _phrases(caption: str, skipped: frozenset[str] | set[str]) -> set[str]:
    """Return the runs of up to four words between signs and words that tell nothing."""
    found = set()
    words = [*re.findall(r"[\w'-]+|[^\w\s]", caption.lower()), ","]
    run: list[str] = []
    for word in words:
        if word not in skipped and re.search(r"\w", word):
            run.append(word)
            continue
        for start in range(len(run)):
            for end in range(start + 1, min(start + _LONGEST_PHRASE, len(run)) + 1):
                found.add(" ".join(run[start:end]))
        run = []
    return found


def _of_missing(references: Sequence[Reference], home: Path) -> Iterator[Finding]:
    missing = [reference.path for reference in references if reference.caption is None]
    if references and len(missing) == len(references):
        yield Finding(
            "warning",
            "no-captions",
            home,
            "has no captions, so everything in the pictures is learnt as the character; write a "
            ".txt beside each that says what is not the character: place, pose, light",
        )
    else:
        for path in missing:
            yield Finding(
                "warning",
                "no-caption",
                path,
                f"has no caption while others have; write {path.stem}.txt",
            )


def _of_length(
    reference: Reference, subject: Subject, tokenizer: Tokenizer | None
) -> Iterator[Finding]:
    tokens = count_tokens(subject.named_in(reference.caption or ""), tokenizer)
    if tokens > MAX_TOKENS:
        counted = f"{tokens} tokens" if tokenizer else f"about {tokens} tokens (an estimate)"
        yield Finding(
            "warning",
            "long-caption",
            reference.path,
            f"the caption has {counted}; the text encoder reads {MAX_TOKENS} and drops the "
            "rest; shorten it",
        )


def _of_repetition(phrase: Repeated, captions: int, home: Path) -> Finding:
    found = f'"{phrase.words}" stands in {phrase.count} of {captions} captions'
    if phrase.identity:
        return Finding(
            "warning",
            "identity-leak",
            home,
            f"{found}: those words will hold it, and the character will lose it without them; "
            "leave it out of the captions",
        )
    return Finding(
        "note",
        "repeated-phrase",
        home,
        f"{found}; keep it if it names what all pictures share and the character is not",
    )
