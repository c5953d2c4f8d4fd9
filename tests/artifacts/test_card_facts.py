"""What a card says, in words."""

from __future__ import annotations

from typing import Any

from personae.artifacts.card import (
    BaseRecord,
    Card,
    CharacterRecord,
    TechniqueRecord,
    TrainingRecord,
)
from personae.artifacts.card_facts import card_facts


def card(config: dict[str, Any] | None = None, **fields: Any) -> Card:
    return Card(
        techniques=[TechniqueRecord(name="lora", config=config or {"rank": 4, "alpha": None})],
        base=BaseRecord(source="toon", family="stable_diffusion", fingerprint="0123"),
        character=CharacterRecord(name="mira", class_noun="cat", phrase="mira cat"),
        content_hash="ab" * 32,
        **fields,
    )


def test_a_card_says_who_what_and_on_which_base() -> None:
    facts = card_facts(card(metrics={"likeness": 0.71236}, notes={"origin": "kohya"}))
    assert facts["character"] == 'mira, a cat; prompts say "mira cat"'
    assert facts["lora"] == "rank 4"  # what has no value is left out
    assert facts["base"] == "toon (stable_diffusion, 0123)"
    assert (facts["likeness"], facts["origin"]) == ("0.7124", "kohya")
    assert facts["sha256"] == "ab" * 32


def test_a_card_says_how_it_was_trained_where_it_knows() -> None:
    assert card_facts(card())["training"] == "unknown"
    done = TrainingRecord(
        steps=5, batch_size=4, pictures=12, seed=1, seconds=8.4, peak_bytes=10**9, parameters=1000,
        device="cpu", schedule={"learning_rate": 0.003},
    )  # fmt: skip
    facts = card_facts(card(training=done))
    assert facts["training"] == "5 steps of 4 on 12 pictures at a learning rate of 0.003, seed 1"
    assert facts["time"] == "8.4 s on cpu"
    assert facts["peak memory"] == "1.0 GB"
    assert facts["trained"] == "1,000 parameters"
    assert (
        "learning rate"
        not in card_facts(card(training=done.model_copy(update={"schedule": {}})))["training"]
    )


def test_a_long_list_of_layers_is_told_by_network_and_kind() -> None:
    layers = [f"denoiser.{i}.attn.{kind}" for i in range(2) for kind in ("to_k", "to_out.0")]
    told = card_facts(card({"layers": [*layers, "tower.0.fc1"]}))["lora"]
    assert told == "layers 5 (4 of denoiser: 2 to_k, 2 to_out; 1 of tower: 1 fc1)"
    assert card_facts(card({"layers": layers}))["lora"] == f"layers {layers}"


def test_a_card_that_no_hash_covers_says_so() -> None:
    assert "as it was saved" in card_facts(card())["card"]
    assert "no hash covers it" in card_facts(card(format_version=1))["card"]
