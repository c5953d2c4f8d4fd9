"""A study small enough for tests: tiny base and encoders in folders, a suite of few shots."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    ResNetConfig,
    ResNetModel,
    ViTImageProcessorPil,
)

from personae.evaluation.scores import Score, Scores
from personae.models.toys import tiny_stable_diffusion, tiny_tokenizer
from personae.study.cell import Cell
from personae.study.result import CellResult
from personae.study.study import Study

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
        "second": f"toon_identity:{world / 'identity'}",
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


SHOTS = ("beach", "forest", "space", "snow")
COSTS = {
    "seconds": 60.0,
    "peak_bytes": 600 * 2**20,
    "parameters": 1000,
    "file_bytes": 1_600_000,
    "load_seconds": 0.03,
    "switch_seconds": 0.02,
    "seconds_per_picture": 0.5,
}


def finished(folder: Path, values: dict[str, Any], findings: dict[str, dict[str, Any]]) -> Study:
    """Return a study whose cells hold invented results, as if they had been run.

    Args:
        folder: of the study.
        values: its grid.
        findings: {row: {"likeness": mean, or a value for each shot and seed, "agreement": mean,
            "second": mean likeness by another encoder, "following": share of the agreement of real
            pictures, "warnings": of the monitor, cost: amount}}; a row that is not named stays
            pending. Without "following" a result is like those of before there was one.
    """
    study = Study.plan(values, folder)
    study.begin()
    for cell in study.cells:
        if cell.spec.row in findings:
            write_finding(cell, findings[cell.spec.row])
    return study


def write_finding(cell: Cell, finding: dict[str, Any]) -> None:
    """Write an invented result: four shots of two seeds, around the means given."""
    keys = [(shot, seed) for shot in SHOTS for seed in (1001, 1002)]
    wobble = np.random.default_rng(0).normal(0, 0.01, len(keys))  # the same for every row
    metrics = {
        name: invented_score(keys, finding.get(name, 0.5) + wobble)
        for name in ("likeness", "agreement", "consistency", "medium_adherence")
    }
    if "second" in finding:
        metrics["likeness_second"] = invented_score(keys, finding["second"] + wobble)
    if "following" in finding:
        metrics["prompt_following"] = invented_score(keys, 0.8 * finding["following"] + wobble)
    metrics["memorisation"] = replace(
        invented_score(keys, wobble),
        details={"copies": [i < finding.get("copies", 0) for i in range(len(keys))]},
    )
    encoders = {"identity": "invented", "image_text": "invented", "second": "invented too (it)"}
    scores = Scores(metrics, encoders, len(keys), 0)
    trained = cell.spec.kind == "trained"
    costs = {name: finding.get(name, amount) for name, amount in COSTS.items()} if trained else {}
    colour = (int(255 * np.mean(finding.get("likeness", 0.5))) % 256, 120, 90)
    result: dict[str, Any] = {
        "row": cell.spec.row,
        "technique": cell.spec.run.technique if trained else cell.spec.kind,
        "seed": cell.spec.run.seed,
        "swept": cell.spec.swept,
        "character": {
            "name": cell.spec.run.character.name,
            "class_noun": "cat",
            "fingerprint": "f" * 64,
            "pictures": 5,
            "held_out": 1,
            "folder": str(cell.spec.run.character),
        },
        "base": {
            "source": cell.spec.run.base,
            "fingerprint": finding.get("fingerprint", "0123456789abcdef"),
            "device": "cpu",
            "precision": "fp32",
        },
        "costs": costs,
        "scores": scores,
        "pictures": paint_all(cell.pictures, keys, colour),
    }
    if cell.spec.kind != "real":
        result["recipe"] = {"sampler": "ddim", "steps": 4, "guidance_scale": 5.0}
        result["class_pictures"] = paint_all(cell.pictures / "class", keys[:2], (90, 90, 160))
    if trained:
        result |= {
            "content_hash": "c" * 64,
            "training": {"steps": 40, "batch_size": 4, "seconds": costs["seconds"]},
            "curve": {
                "loss": [[10, 0.5], [20, 0.4]],
                "validation": [[20, 0.4, 0.5], [40, 0.3, 0.5]],
                "scored": [
                    {"step": s, "likeness": s / 100, "agreement": 0.3, "drift": 0.1}
                    for s in (20, 40)
                ],
                "stopped": None,
                "kept": None,
                "warnings": finding.get("warnings", []),
            },
        }
    cell.write_result(CellResult(**result))


def invented_score(keys: list[tuple[str, int]], values: Any) -> Score:
    """Return a score of these values with a ceiling of 0.8."""
    mean = float(np.mean(values))
    return Score(
        "cosine",
        "higher",
        tuple(float(value) for value in values),
        tuple(keys),
        mean,
        mean - 0.01,
        mean + 0.01,
        0.8,
        mean / 0.8,
    )


def paint_all(
    folder: Path, keys: list[tuple[str, int]], colour: tuple[int, int, int]
) -> list[dict[str, Any]]:
    """Write one plain picture per key and return their entries in a result."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for shot, seed in keys:
        name = f"{shot}-{seed}.png"
        Image.new("RGB", (32, 32), colour).save(folder / name)
        entries.append(
            {"shot": shot, "seed": seed, "prompt": f"a cat, {shot}", "medium": None, "file": name}
        )
    return entries
