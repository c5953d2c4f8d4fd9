"""What a card says, in words for a person."""

from __future__ import annotations

from collections import Counter

from personae.artifacts.card import Card, TrainingRecord
from personae.core.units import count, duration, size

# Longer lists of names in the settings of a technique are told as counts.
MOST_NAMES = 4


def card_facts(card: Card) -> dict[str, str]:
    """Return {what: in words} of all that a card says, in the order to show it."""
    who = card.character
    return {
        "character": f'{who.name}, a {who.class_noun}; prompts say "{who.phrase}"',
        **_settings(card),
        "base": f"{card.base.source} ({card.base.family}, {card.base.fingerprint})",
        **_training(card.training),
        **{name: f"{value:.4g}" for name, value in card.metrics.items()},
        **card.notes,
        "sha256": card.content_hash,
        "card": "covered by a hash, and as it was saved"
        if card.sealed
        else "of an older format: no hash covers it, so changes of it would not be seen",
    }


def _settings(card: Card) -> dict[str, str]:
    """Return each technique with the settings that have a value."""
    return {
        record.name: ", ".join(
            f"{key} {_shortened(value)}"
            for key, value in record.config.items()
            if value is not None
        )
        for record in card.techniques
    }


def _shortened(value: object) -> object:
    """Return `value`, or how many names of each network and kind a long list of layers has.

    A kind is the last part of a dotted name that is no number: `to_out` of `attn1.to_out.0`.
    """
    if not isinstance(value, list) or len(value) <= MOST_NAMES:
        return value
    if not all(isinstance(each, str) and "." in each for each in value):
        return value
    kinds: dict[str, Counter[str]] = {}
    for name in value:
        network, *parts = name.split(".")
        kind = next((part for part in reversed(parts) if not part.isdigit()), network)
        kinds.setdefault(network, Counter())[kind] += 1
    told = (
        f"{counts.total()} of {network}: "
        + ", ".join(f"{number} {kind}" for kind, number in sorted(counts.items()))
        for network, counts in kinds.items()
    )
    return f"{len(value)} ({'; '.join(told)})"


def _training(done: TrainingRecord) -> dict[str, str]:
    """Return how it was trained and what that cost, as far as it is known."""
    if not done.steps:
        return {"training": "unknown"}
    rate = done.schedule.get("learning_rate")
    at = "" if rate is None else f" at a learning rate of {rate:g}"
    return {
        "training": f"{count(done.steps, 'step')} of {done.batch_size} on "
        f"{count(done.pictures, 'picture')}{at}, seed {done.seed}",
        "time": f"{duration(done.seconds)} on {done.device}",
        "peak memory": size(done.peak_bytes),
        "trained": count(done.parameters, "parameter"),
    }
