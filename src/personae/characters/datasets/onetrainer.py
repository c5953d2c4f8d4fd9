"""OneTrainer's concepts: a JSON list of folders with their kind, repeats and caption source.

Only what says which pictures are learnt, and how often, is taken from it. Source: OneTrainer,
modules/util/config/ConceptConfig.py and modules/dataLoader/mixin/DataLoaderText2ImageMixin.py.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from personae.characters.dataset import (
    DatasetLayout,
    FolderRule,
    FoundPictures,
    Role,
    above_zero,
    at_least_one,
    entry_file,
    merge,
    read_folder,
    resolve,
    take,
    the_entry_file,
)
from personae.characters.dataset_files import parse_json
from personae.characters.reference import Reference
from personae.characters.sidecars import CaptionRule, clean, first_line, read_caption
from personae.core.registry import nearest
from personae.errors import CharacterError

_ROLES: Final[dict[str, Role]] = {
    "STANDARD": "references",
    "VALIDATION": "held_out",
    "PRIOR_PREDICTION": "prior",
}


class OneTrainer(DatasetLayout):
    """Concepts: STANDARD ones are learnt, VALIDATION held out, PRIOR_PREDICTION the class."""

    name = "onetrainer"
    title = "OneTrainer JSON list of concepts with a path"

    def matches(self, path: Path) -> bool:
        """Such a file, or a folder that holds exactly one."""
        return entry_file(path, (".json",), _has_concepts) is not None

    def read(self, path: Path) -> FoundPictures:
        """Read each enabled concept; the first that is learnt names the character."""
        file = the_entry_file(path, (".json",), _has_concepts)
        concepts = [c for c in _concepts(parse_json(file)) if c.get("enabled", True)]
        if not concepts:
            raise CharacterError(f"{file}: no concept is enabled; enable one")
        parts = [_read_concept(concept, file) for concept in concepts]
        learnt = [c for c in concepts if _role(c, file) == "references"]
        return merge(parts, name=take(learnt[0], "name", str, None, str(file)) if learnt else None)


def _has_concepts(path: Path) -> bool:
    return bool(_concepts(parse_json(path)))


def _concepts(content: object) -> list[dict[str, Any]]:
    """Return the concepts of a file, or none if it is no list of them."""
    if not isinstance(content, list):
        return []
    is_list = all(isinstance(concept, dict) and "path" in concept for concept in content)
    return content if is_list else []


def _role(concept: dict[str, Any], file: Path) -> Role:
    if concept.get("validation_concept") is True:  # how it was written before there were kinds
        return "held_out"
    kind = take(concept, "type", str, "STANDARD", str(file))
    if kind not in _ROLES:
        raise CharacterError(
            f"{file}: the type of a concept is '{kind}'; expected {', '.join(_ROLES)}."
            f"{nearest(kind, _ROLES)}"
        )
    return _ROLES[kind]


def _read_concept(concept: dict[str, Any], file: Path) -> FoundPictures:
    where = f"{file}, concept {concept.get('name') or concept['path']}"
    text = take(concept, "text", dict, {}, where)
    source = take(text, "prompt_source", str, "sample", where)
    captions = CaptionRule((".txt",), first_line=True)
    match source:
        case "sample" | "filename":
            pass
        case "concept":
            prompts = resolve(take(text, "prompt_path", str, "", where), file)
            captions = CaptionRule((), clean(first_line(read_caption(prompts))))
        case _:
            raise CharacterError(
                f"{where}: prompt_source is '{source}'; expected sample, concept or filename."
                f"{nearest(source, ('sample', 'concept', 'filename'))}"
            )
    rule = FolderRule(
        captions,
        _role(concept, file),
        _repeats(concept, where),
        above_zero(take(concept, "loss_weight", float, 1.0, where), "loss_weight", where),
        recursive=take(concept, "include_subdirectories", bool, False, where),
    )
    found = read_folder(resolve(take(concept, "path", str, "", where), file), rule)
    return _captioned_by_name(found) if source == "filename" else found


def _repeats(concept: dict[str, Any], where: str) -> int:
    strategy = take(concept, "balancing_strategy", str, "REPEATS", where)
    # What was called repeats before there were strategies.
    repeats = take(concept, "repeats", float, 1.0, where)
    balancing = take(concept, "balancing", float, repeats, where)
    if strategy != "REPEATS" or not balancing.is_integer():
        raise CharacterError(
            f"{where}: balancing is {balancing:g} {strategy}; "
            "pictures are shown whole: use a whole number of REPEATS"
        )
    return at_least_one(int(balancing), where)


def _captioned_by_name(found: FoundPictures) -> FoundPictures:
    def named(references: tuple[Reference, ...]) -> tuple[Reference, ...]:
        return tuple(replace(r, caption=clean(r.path.stem)) for r in references)

    return replace(
        found,
        references=named(found.references),
        held_out=named(found.held_out),
        prior=named(found.prior),
    )
