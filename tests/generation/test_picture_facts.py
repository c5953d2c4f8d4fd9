"""What a picture says of itself, in words."""

from __future__ import annotations

from personae.generation.infotext import Settings
from personae.generation.picture_facts import recipe_facts, settings_facts
from personae.generation.recipe import MemberRecord, Recipe, RecipeRow
from personae.generation.settings import Sampling


def test_a_recipe_says_all_that_decides_the_picture() -> None:
    recipe = Recipe(
        version="0.1.0",
        base="toon",
        fingerprint="0123",
        precision="float32",
        cast={"mira": MemberRecord(file="m.safetensors", content_hash="ab" * 32, strength="0.5")},
        sampling=Sampling(sampler="euler", steps=20),
        batch=[RecipeRow(prompt="the sea", seed=7), RecipeRow(prompt="{mira}", seed=8)],
        row=1,
    )
    facts = recipe_facts(recipe)
    assert (facts["prompt"], facts["seed"], facts["batch"]) == ("{mira}", "8", "row 2 of 2")
    assert facts["cast mira"] == "m.safetensors at strength 0.5 (abababababab)"
    assert facts["sampling"] == "sampler euler, steps 20, guidance scale 5.0"
    assert facts["base"] == "toon (0123) in float32"
    assert facts["drawn by"] == "personae 0.1.0"


def test_settings_of_another_tool_say_what_they_know() -> None:
    settings = Settings("a girl", seed=0, sampler="euler", extra={"Clip skip": "2"})
    assert settings_facts(settings) == {
        "prompt": "a girl",
        "seed": "0",
        "sampler": "euler",
        "Clip skip": "2",
    }
