"""kohya's dataset configuration: `[general]`, `[[datasets]]`, `[[datasets.subsets]]`.

Only what says which pictures are learnt, and how often, is taken from it; its training settings
(resolution, batch size, augmentation) are options of personae's own and are mentioned. The
pictures of `conditioning_data_dir` are the masks of its masked loss, white where is learnt.
Source: sd-scripts, docs/config_README-en.md.
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
    at_least_one,
    entry_file,
    in_role,
    merge,
    read_folder,
    resolve,
    take,
    the_entry_file,
)
from personae.characters.dataset_files import parse_toml
from personae.characters.folder_index import list_folder
from personae.characters.reference import Reference
from personae.characters.sidecars import CAPTION_SUFFIXES, CaptionRule
from personae.errors import CharacterError

_DEFAULT_SUFFIX: Final = ".caption"
_READ: Final = frozenset({"general", "datasets", "subsets", "image_dir", "metadata_file"}) | {
    "class_tokens",
    "is_reg",
    "num_repeats",
    "caption_extension",
    "caption_prefix",
    "caption_suffix",
    "conditioning_data_dir",
}


class KohyaToml(DatasetLayout):
    """A TOML file whose `datasets` have `subsets`, each a folder of pictures."""

    name = "kohya_toml"
    title = "kohya TOML with [[datasets.subsets]]"

    def matches(self, path: Path) -> bool:
        """Such a file, or a folder that holds exactly one."""
        return entry_file(path, (".toml",), _has_datasets) is not None

    def read(self, path: Path) -> FoundPictures:
        """Read each subset; the first subset that is not for regularisation names the character."""
        file = the_entry_file(path, (".toml",), _has_datasets)
        content = parse_toml(file)
        subsets = _subsets(content, file)
        parts, seen = [], set()
        for subset in subsets:
            source = subset.get("metadata_file") or subset.get("image_dir")
            if source in seen:
                parts.append(
                    FoundPictures(notes=(f"{file}: {source} is listed twice and read once",))
                )
                continue
            seen.add(source)
            parts.append(_read_subset(subset, file))
        parts.append(FoundPictures(notes=_ignored(content, file)))
        tokens = next((s["class_tokens"] for s in subsets if _names_character(s)), None)
        name, _, noun = (tokens or "").partition(" ")
        return merge(parts, name=name or None, class_noun=noun or None, phrase=tokens)


def _has_datasets(path: Path) -> bool:
    datasets = parse_toml(path).get("datasets")
    return isinstance(datasets, list) and all(isinstance(dataset, dict) for dataset in datasets)


def _subsets(content: dict[str, Any], file: Path) -> list[dict[str, Any]]:
    """Return the subsets, each with the settings it inherits."""
    general = take(content, "general", dict, {}, str(file))
    found = []
    for dataset in content["datasets"]:
        subsets = take(dataset, "subsets", list, [], f"{file}, [[datasets]]")
        found += [
            {**general, **dataset, **subset} for subset in subsets if isinstance(subset, dict)
        ]
    if not found:
        raise CharacterError(f"{file}: has no [[datasets.subsets]]; add one with an image_dir")
    return found


def _names_character(subset: dict[str, Any]) -> bool:
    return isinstance(subset.get("class_tokens"), str) and not subset.get("is_reg", False)


def _read_subset(subset: dict[str, Any], file: Path) -> FoundPictures:
    where = f"{file}, subset {subset.get('image_dir') or subset.get('metadata_file')}"
    repeats = at_least_one(take(subset, "num_repeats", int, 1, where), where)
    role: Role = "prior" if take(subset, "is_reg", bool, False, where) else "references"
    directory = take(subset, "image_dir", str, None, where)
    table = take(subset, "metadata_file", str, None, where)
    if table is not None:
        folder = resolve(table, file).parent if directory is None else resolve(directory, file)
        listed = read_table(resolve(table, file), folder, repeats=repeats)
        found = replace(
            in_role(role, listed.references),
            notes=listed.notes,
            problems=listed.problems,
            unused=listed.unused,
        )
    elif directory is not None:
        folder = resolve(directory, file)
        captions, notes = _captions(subset, folder, where)
        masks = take(subset, "conditioning_data_dir", str, None, where)
        place = None if masks is None else resolve(masks, file)
        rule = FolderRule(captions, role, repeats=repeats, masks=place)
        found = merge([read_folder(folder, rule), FoundPictures(notes=notes)])
    else:
        raise CharacterError(f"{file}: a subset has no image_dir; name its folder of pictures")
    return _affixed(found, subset, where)


def _captions(
    subset: dict[str, Any], folder: Path, where: str
) -> tuple[CaptionRule, tuple[str, ...]]:
    default = take(subset, "class_tokens", str, None, where)
    suffix = take(subset, "caption_extension", str, None, where)
    if suffix is not None:
        return CaptionRule((f".{suffix.lstrip('.')}",), default, first_line=True), ()
    suffixes = {path.suffix.lower() for path in list_folder(folder)}
    if _DEFAULT_SUFFIX not in suffixes and ".txt" in suffixes:
        note = (
            f"{where}: has no caption_extension, so kohya would look for {_DEFAULT_SUFFIX} and "
            "miss the .txt files; they are read here"
        )
        return CaptionRule(CAPTION_SUFFIXES, default, first_line=True), (note,)
    return CaptionRule((_DEFAULT_SUFFIX,), default, first_line=True), ()


def _affixed(found: FoundPictures, subset: dict[str, Any], where: str) -> FoundPictures:
    """Return the reading with `caption_prefix` and `caption_suffix` around each caption."""
    prefix = take(subset, "caption_prefix", str, "", where)
    suffix = take(subset, "caption_suffix", str, "", where)

    def affix(references: tuple[Reference, ...]) -> tuple[Reference, ...]:
        return tuple(
            r if r.caption is None else replace(r, caption=f"{prefix}{r.caption}{suffix}".strip())
            for r in references
        )

    return replace(found, references=affix(found.references), prior=affix(found.prior))


def _ignored(content: dict[str, Any], file: Path) -> tuple[str, ...]:
    tables = [content, content.get("general", {}), *content["datasets"]]
    tables += [subset for dataset in content["datasets"] for subset in dataset.get("subsets", [])]
    keys = sorted({key for table in tables for key in table} - _READ)
    if not keys:
        return ()
    return (f"{file}: {', '.join(keys)} not taken over; set what you need as training options",)
