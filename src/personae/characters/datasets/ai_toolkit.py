"""ai-toolkit's YAML: `config.process[].datasets[]` with `folder_path`, captions and masks.

Only what says which pictures are learnt, and how often, is taken from it. Source: ai-toolkit,
toolkit/config_modules.py (DatasetConfig) and toolkit/dataloader_mixins.py (captions).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from personae.characters.caption_tables import read_table
from personae.characters.dataset import (
    DatasetLayout,
    FolderRule,
    FoundPictures,
    Role,
    above_zero,
    at_least_one,
    entry_file,
    in_role,
    merge,
    read_folder,
    resolve,
    take,
    the_entry_file,
)
from personae.characters.dataset_files import parse_yaml
from personae.characters.sidecars import CaptionRule
from personae.errors import CharacterError

_SKIPPED: Final = frozenset({"_controls"})
"""Subfolders that ai-toolkit does not read either; it reads all others."""

_READ: Final = frozenset(
    {"folder_path", "dataset_path", "num_repeats", "loss_multiplier", "is_reg", "mask_path"}
    | {"invert_mask", "caption_ext", "default_caption", "trigger_word", "resolution"}
)


class AiToolkit(DatasetLayout):
    """A YAML job file; the `trigger_word` is how its captions name the character."""

    name = "ai_toolkit"
    title = "ai-toolkit YAML with config.process[].datasets"

    def matches(self, path: Path) -> bool:
        """Such a file, or a folder that holds exactly one."""
        return entry_file(path, (".yaml", ".yml"), _has_datasets) is not None

    def read(self, path: Path) -> FoundPictures:
        """Read each dataset; listing one folder at several resolutions counts it once."""
        file = the_entry_file(path, (".yaml", ".yml"), _has_datasets)
        pairs = _datasets(parse_yaml(file))
        parts, seen = [], set()
        for dataset, _ in pairs:
            source = _source(dataset)
            if source in seen:
                parts.append(
                    FoundPictures(notes=(f"{file}: {source} is listed twice and read once",))
                )
                continue
            seen.add(source)
            parts.append(_read_dataset(dataset, file))
        parts.append(FoundPictures(notes=_ignored(pairs, file)))
        trigger = next((word for _, word in pairs if word), None)
        return merge(parts, phrase=trigger)


def _has_datasets(path: Path) -> bool:
    return bool(_datasets(parse_yaml(path)))


def _datasets(content: object) -> list[tuple[dict[str, Any], str | None]]:
    """Return each dataset with the trigger word that holds for it."""
    config = content.get("config") if isinstance(content, dict) else None
    processes = config.get("process") if isinstance(config, dict) else None
    found = []
    for process in processes if isinstance(processes, list) else []:
        datasets = process.get("datasets") if isinstance(process, dict) else None
        for dataset in datasets if isinstance(datasets, list) else []:
            if isinstance(dataset, dict):
                word = dataset.get("trigger_word") or process.get("trigger_word")
                found.append((dataset, word if isinstance(word, str) else None))
    return found


def _source(dataset: dict[str, Any]) -> object:
    """Return where the pictures are; `dataset_path` goes first, as it does in ai-toolkit."""
    return dataset.get("dataset_path") or dataset.get("folder_path")


def _read_dataset(dataset: dict[str, Any], file: Path) -> FoundPictures:
    where = f"{file}, dataset {_source(dataset)}"
    repeats = at_least_one(take(dataset, "num_repeats", int, 1, where), where)
    multiplier = take(dataset, "loss_multiplier", float, 1.0, where)
    weight = above_zero(multiplier, "loss_multiplier", where)
    role: Role = "prior" if take(dataset, "is_reg", bool, False, where) else "references"
    folder = take(dataset, "folder_path", str, None, where)
    source = take(dataset, "dataset_path", str, folder, where)
    if source is None:
        raise CharacterError(f"{file}: a dataset has no folder_path; name its folder of pictures")
    path = resolve(source, file)
    if path.is_file():
        listed = read_table(path, path.parent, repeats=repeats)
        weighted = tuple(replace(r, loss_weight=weight) for r in listed.references)
        return replace(
            in_role(role, weighted),
            notes=listed.notes,
            problems=listed.problems,
            unused=listed.unused,
        )
    masks = take(dataset, "mask_path", str, None, where)
    rule = FolderRule(
        _captions(dataset, where),
        role,
        repeats,
        weight,
        masks=None if masks is None else resolve(masks, file),
        masks_inverted=take(dataset, "invert_mask", bool, False, where),
        recursive=True,
        skipped=_SKIPPED,
    )
    return read_folder(path, rule)


def _ignored(pairs: list[tuple[dict[str, Any], str | None]], file: Path) -> tuple[str, ...]:
    keys = sorted({str(key) for dataset, _ in pairs for key in dataset} - _READ)
    if not keys:
        return ()
    return (f"{file}: {', '.join(keys)} not taken over; set what you need as training options",)


def _captions(dataset: dict[str, Any], where: str) -> CaptionRule:
    suffix = take(dataset, "caption_ext", str, "txt", where)
    default = take(dataset, "default_caption", str, None, where)
    return CaptionRule((f".{suffix.lstrip('.')}",), default)
