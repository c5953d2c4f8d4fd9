"""The free text of safetensors files that other tools act on or show.

Keys beginning with `ss_` are those of kohya's scripts, `modelspec.` those of ModelSpec 1.0.1;
all values are strings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from personae.artifacts.artifact import Artifact
from personae.artifacts.card import CharacterRecord
from personae.core.registry import lookup
from personae.formats.layout import Layout
from personae.formats.tensor_file import HASH_TO_COME
from personae.techniques.technique import Technique

CHARACTER = "personae.character"
"""Key of ours in files of other tools; files that have it are about, so it keeps its name."""
LONGEST_PHRASE = 300
_TOKEN_FOLDER = re.compile(r"\d{1,9}_(.+)")


def model_spec(artifact: Artifact, layout: Layout, *, part: str, title: str) -> dict[str, str]:
    """Return the ModelSpec keys of a file.

    Args:
        artifact: what the file holds.
        layout: of its base.
        part: what is added to the architecture: "lora", "textual-inversion", "hypernetwork" or ""
            for a whole checkpoint.
        title: shown to people.
    """
    diffusers_names = part == "lora" and layout.kind != "sdxl"
    spec = {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{layout.architecture}/{part}".rstrip("/"),
        "modelspec.implementation": "diffusers"
        if diffusers_names
        else "https://github.com/Stability-AI/generative-models",
        "modelspec.title": title,
        "modelspec.trigger_phrase": artifact.card.character.phrase,
        "modelspec.prediction_type": "v" if layout.v_prediction else "epsilon",
        "modelspec.hash_sha256": f"0x{HASH_TO_COME}",
    }
    if "license" in artifact.card.notes:
        spec["modelspec.license"] = artifact.card.notes["license"]
    return spec


def kohya_metadata(
    artifact: Artifact, layout: Layout, *, stem: str, rank: int, alpha: float
) -> dict[str, str]:
    """Return the keys of a LoRA file that A1111, kohya's scripts and SwarmUI act on.

    Args:
        artifact: a LoRA.
        layout: of its base.
        stem: file name without ending; A1111 uses it in `<lora:...>`.
        rank: largest of the file.
        alpha: the one of the file.
    """
    training, character = artifact.card.training, artifact.card.character
    convolutions = any(
        name.endswith(".down") and value.dim() == 4
        for name, value in lookup(Technique, "lora").learnt_in(artifact.tensors).items()
    )
    sizes = {"conv_dim": str(rank), "conv_alpha": f"{alpha:g}"} if convolutions else {}
    values = {
        "ss_base_model_version": layout.version,
        "ss_v2": str(layout.kind == "sd2"),
        "ss_output_name": stem,
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": f"{alpha:g}",
        "ss_network_args": json.dumps(sizes),
        "ss_sd_model_name": artifact.card.base.source,
        "ss_num_train_images": str(training.pictures),
        "ss_steps": str(training.steps),
        "ss_total_batch_size": str(training.batch_size),
        "ss_seed": str(training.seed),
        "ss_tag_frequency": json.dumps({character.name: {character.phrase: training.pictures}}),
        "sshs_model_hash": HASH_TO_COME,
        CHARACTER: character.model_dump_json(),
    }
    return values | model_spec(artifact, layout, part="lora", title=stem)


def character_in(metadata: Mapping[str, str], path: Path) -> CharacterRecord:
    """Return whom a file shows: as it says, else named after the file.

    The phrase is ours if we wrote the file, else ModelSpec's trigger phrase, else the words of the
    folder that kohya's scripts trained on ("10_mira girl"), else the file's name. The tags they
    counted are no name: the most frequent one is "1girl", or a whole caption.
    """
    try:
        return CharacterRecord.model_validate_json(metadata.get(CHARACTER, ""))
    except ValidationError:
        phrase = metadata.get("modelspec.trigger_phrase") or _folder_words(metadata)
        phrase = " ".join((phrase or path.stem).split())[:LONGEST_PHRASE]
        return CharacterRecord(name=path.stem, class_noun="", phrase=phrase)


def _folder_words(metadata: Mapping[str, str]) -> str | None:
    """Return the words of the one folder `<repeats>_<words>` that a file was trained on."""
    found: set[str] = set()
    for key in ("ss_tag_frequency", "ss_dataset_dirs"):
        try:
            folders = json.loads(metadata.get(key, "{}"))
        except (ValueError, RecursionError):
            continue
        names = folders if isinstance(folders, dict) else ()
        found |= {match[1] for name in names if (match := _TOKEN_FOLDER.fullmatch(name))}
    words = {" ".join(each.replace("_", " ").split()) for each in found} - {""}
    return words.pop() if len(words) == 1 else None
