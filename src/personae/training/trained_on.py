"""What a run is trained on, kept in its state: a run that is resumed must meet the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from personae.characters.character import Character
from personae.characters.held_out import digest
from personae.core.cache import default_folder, spare_folder
from personae.errors import TrainingError
from personae.training.batches import TrainingSet
from personae.training.settings import RunConfig

MOST_NAMED = 5  # differences that a refusal names

# What only says where things lie, what is shown on the way and which device computes.
MAY_CHANGE = (
    "character", "base", "device", "memory", "unload", "block_offload", "checkpoint_every",
    "preview_every", "preview_prompts", "validate_every", "tensorboard",
)  # fmt: skip


def record_of(
    settings: RunConfig, networks: list[Any], character: Character, sets: Mapping[str, TrainingSet]
) -> dict[str, Any]:
    """Return what the outcome of a run depends on, in plain values.

    Args:
        settings: of the run, with every default filled in.
        networks: what identifies the weights of the base.
        character: whose held-out pictures decide what is validated and kept.
        sets: what is trained on, by what its pictures are in a message: "trained on".
    """
    pictures: dict[str, dict[str, Any]] = {}
    for use, each in sets.items():
        for item in each.items:
            about = {
                "use": use,
                "picture": each.digest(item.reference.path),
                "mask": item.reference.mask and each.digest(item.reference.mask),
                "meaning of its mask": item.reference.mask_inverted,
                "caption": item.caption,
                "class caption": item.class_caption,
                "number of repeats": item.reference.repeats,
                "loss weight": item.reference.loss_weight,
            }
            _enter(pictures, _name(character, item.reference.path), about)
    for reference in character.held_out:
        about = {"use": "held out", "picture": digest(reference.path)}
        _enter(pictures, _name(character, reference.path), about)
    values = settings.model_dump(mode="json")
    own = settings.technique_configs()  # with their defaults, which another version may change
    values["settings"] = {name: each.model_dump(mode="json") for name, each in own.items()}
    return {"settings": values, "networks": repr(networks), "pictures": pictures}


def refuse_other(then: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    """Refuse to go on with other pictures, captions, settings or networks than a run began with.

    Args:
        then: `record_of` in the state of the run.
        now: `record_of` of what is there today.
        folder: of the run.

    Raises:
        TrainingError: they differ; the message names what does.
    """
    for key, before, value in _other_values(then["settings"], now["settings"]):
        key = key.removeprefix("settings.")
        raise TrainingError(
            f"{folder / 'config.toml'}: {key} is {value!r}, but the run was begun with {before!r}; "
            "set it back, or start a new run"
        )
    if then["networks"] != now["networks"]:
        raise TrainingError(
            f"{folder}: the base holds other weights than those this run was begun on; bring them "
            "back, or start a new run"
        )
    found = list(_other_pictures(then["pictures"], now["pictures"]))
    if found:
        more = f"; {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
        raise TrainingError(
            f"{folder}: its pictures are not those the run was begun with: "
            f"{'; '.join(found[:MOST_NAMED])}{more}; put them back as they were, or start a new run"
        )


def _enter(pictures: dict[str, dict[str, Any]], name: str, about: dict[str, Any]) -> None:
    """Add a picture; one that is listed twice with other words has two names."""
    known, number = name, 1
    while known in pictures and pictures[known] != about:
        number += 1
        known = f"{name} ({number})"
    pictures[known] = about


def _name(character: Character, path: Path) -> str:
    """Return what a message calls a file; those drawn for a run lie wherever there was room."""
    path, home = path.absolute(), character.folder.absolute()
    if path.is_relative_to(home):
        return str(path.relative_to(home))
    drawn = any(path.is_relative_to(each) for each in (default_folder().absolute(), spare_folder()))
    return f"class picture {path.name}" if drawn else str(path)


def _other_values(
    then: Mapping[str, Any], now: Mapping[str, Any], above: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Yield (dotted key, value then, value now); settings of a newer version are not known then."""
    for key in then:
        before, value = then[key], now.get(key)
        if above + key in MAY_CHANGE:
            continue
        if isinstance(before, dict) and isinstance(value, dict):
            yield from _other_values(before, value, f"{above}{key}.")
        elif before != value:
            yield above + key, before, value


def _other_pictures(
    then: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    both = [name for name in then if name in now]
    yield from (f"{name} is gone" for name in then if name not in now)
    yield from (f"{name} is new" for name in now if name not in then)
    yield from (
        f"{name} was altered" for name in both if then[name]["picture"] != now[name]["picture"]
    )
    for name in both:
        before, about = then[name], now[name]
        if before["use"] != about["use"]:
            yield f"{name} is {about['use']} now, and was {before['use']}"
            continue
        for what in before:
            if what != "picture" and before[what] != about.get(what):
                yield f"{name} has another {what}"
    if list(then) != list(now) and then.keys() == now.keys():
        yield "their order changed"
