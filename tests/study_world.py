"""A study small enough for tests: a tiny base and tiny encoders in folders, a suite of few shots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    ResNetConfig,
    ResNetModel,
    ViTImageProcessorPil,
)

from personae.families.tiny import tiny_stable_diffusion, tiny_tokenizer

SIDE = 32
SUITE = """
name = "few"
shots = [
  {id = "the_can", kind = "scene", prompt = "a {character} and the can"},
  {id = "sea", kind = "scene", prompt = "a {character} at the sea"},
  {id = "ink", kind = "medium", medium = "ink", prompt = "an ink drawing of a {character}"},
  {id = "clay", kind = "medium", medium = "clay", prompt = "a {character} made of clay"},
]
class_shots = [
  {id = "class_can", prompt = "a {class} and the can"},
  {id = "class_sea", prompt = "a {class} at the sea"},
]
"""


def build(root: Path) -> Path:
    """Write `base`, `identity`, `image_text` and `few.toml` below `root`, and return it."""
    tiny_stable_diffusion(1).save_pretrained(root / "base")
    transformer = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    text = {"vocab_size": 521, "bos_token_id": 519, "eos_token_id": 520, "pad_token_id": 520}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        clip = CLIPModel(
            CLIPConfig(
                text_config=transformer | text,
                vision_config=transformer | {"image_size": SIDE, "patch_size": 8},
                projection_dim=12,
            )
        )
        identity = ResNetModel(
            ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
        )
    clip.save_pretrained(root / "image_text")
    size = {"height": SIDE, "width": SIDE}
    CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=size).save_pretrained(
        root / "image_text"
    )
    tiny_tokenizer().save_pretrained(root / "image_text")
    identity.save_pretrained(root / "identity")
    ViTImageProcessorPil(size=size).save_pretrained(root / "identity")
    (root / "few.toml").write_text(SUITE, encoding="utf-8")
    return root


def judging(world: Path) -> dict[str, Any]:
    """Return the judging settings of the world at `world`."""
    return {
        "suite": str(world / "few.toml"),
        "identity": f"toon_identity:{world / 'identity'}",
        "image_text": f"toon_clip:{world / 'image_text'}",
        "seeds": 2,
        "class_seeds": 1,
        "checkpoint_shots": 2,
        "sampling": {"steps": 2},
    }


def grid(world: Path, character: Path, **values: Any) -> dict[str, Any]:
    """Return a study of one technique and one seed, four steps long."""
    schedule = {"batch_size": 2, "learning_rate": 1e-3} | values.pop("schedule", {})
    return {
        "character": [str(character)],
        "base": str(world / "base"),
        "technique": ["lora"],
        "device": "cpu",
        "precision": "fp32",
        "budget": "steps=4",
        "judging": judging(world),
        "schedule": schedule,
        **values,
    }
