"""A run inside its limit of memory: the settings that make it fit, the gentlest first."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import product
from typing import Any

import torch

from personae.characters.character import Character
from personae.core.devices import HOST, pick_device
from personae.core.memory import free_bytes, give_back_as_freed, resident_bytes
from personae.core.registry import lookup
from personae.errors import DoesNotFitError, UsageError
from personae.models.acceleration.choice import setting
from personae.models.acceleration.wide_products import lacks_kernels
from personae.models.family import Family
from personae.models.load import keep_blocks, load_base, offload_blocks
from personae.models.weights.files import stored_parameters, weight_bytes
from personae.models.weights.offloaded import offloaded_bytes
from personae.models.weights.quantised import pick_format
from personae.models.weights.sources import local_folder
from personae.techniques.technique import Leaner, Technique
from personae.training.events import Planned
from personae.training.memory.forecast import KERNELS, besides_tensors, loaded_bytes, needed
from personae.training.schedule import Schedule
from personae.training.settings import RunConfig

Mode = dict[str, Any]
CHECKPOINTED: Mode = {"acceleration": "lean", "unload": True, "gradient_checkpointing": "full"}
# Modes that leave what is trained as it is come first. Each later one is leaner and slower.
EXACT_MODES: tuple[Mode, ...] = (
    {},
    {"acceleration": "lean"},
    {"acceleration": "lean", "unload": True},
    {"acceleration": "lean", "unload": True, "gradient_checkpointing": "selective"},
    *({**CHECKPOINTED, "block_offload": share} for share in (0.0, 0.5, 1.0)),
    *({**CHECKPOINTED, "block_offload": share, "micro_batch": 1} for share in (0.0, 1.0)),
)
# These train something else, and each takes less than the one before.
LESS_STATE: tuple[Mode, ...] = (
    {},
    {"optimizer": "adamw8bit"},
    {"optimizer": "adamw8bit", "update": "in_backward"},
    {"optimizer": "adafactor", "update": "in_backward"},
)
REASONS = {
    "precision": "the base has two bytes a parameter in the place of four",
    "acceleration": "no second copies of weights are packed",
    "unload": "autoencoder and text encoders leave memory while they are not used",
    "gradient_checkpointing": "activations are computed again in the backward pass",
    "block_offload": "blocks of the denoiser lie in the host's memory until they are needed",
    "micro_batch": "a batch is computed one picture at a time",
    "optimizer": "the optimiser keeps smaller states",
    "update": "each gradient is used and freed inside the backward pass",
}


@contextmanager
def within_limit(
    config: RunConfig, character: Character, base: Family | None = None, *, planned: bool = False
) -> Iterator[tuple[RunConfig, Family, Planned | None]]:
    """Load the base of a run and resolve its settings, so that it keeps to `config.memory`.

    Yields the settings with every default filled in, the base, and the plan where one was made.
    Without a limit and without `unload` nothing is saved. With one of them, the C library gives
    freed memory back at once, in the whole process while the block lasts: it has no narrower way.

    Args:
        config: the run.
        character: whose pictures are trained on.
        base: a loaded one, lent for the length of the block; None = load it.
        planned: `config` holds the modes of an earlier plan.

    Raises:
        DoesNotFitError: even the leanest modes need more.
    """
    lent, plan = base is not None, None
    with ExitStack() as lending, ExitStack() as saving:
        if config.saves_memory:
            give_back_as_freed()
            saving.callback(give_back_as_freed, at_once=False)
        base = base or _loaded(config)
        config = config.resolved(len(character.references), base)
        if config.memory is not None:
            if not planned:
                config, plan = fitting(config, character, base)
            base = base.allowing(setting(config.acceleration))
        if config.block_offload and base.offloaded is None:
            _offload(config, base)
            if lent:
                lending.callback(keep_blocks, base)
        if not config.unload:
            saving.close()  # memory that is kept is quicker, and there is room
            base.unloaded.reload()
        try:
            yield config, base, plan
        finally:
            if lent:
                base.unloaded.reload()


def _loaded(config: RunConfig) -> Family:
    return load_base(
        config.base,
        device=config.device,
        precision=loading_precision(config),
        acceleration=config.acceleration,
        denoiser_unloaded=config.saves_memory or config.block_offload > 0,
    )


def _offload(config: RunConfig, base: Family) -> None:
    """Offload blocks of a base as `config` asks for.

    Raises:
        UsageError: the base computes in the host's memory.
    """
    if base.device.type == HOST.type:
        raise UsageError(
            f"block_offload is {config.block_offload}, but the base computes on the processor, "
            "whose memory is the host's; leave it out"
        )
    offload_blocks(base, config.block_offload)


def loading_precision(config: RunConfig) -> str:
    """Return the format to load the base in: bf16 where auto's float32 is sure not to fit."""
    if config.precision != "auto" or config.memory is None or not _auto_is_whole(config):
        return config.precision
    if setting(config.acceleration) == "none" and lacks_kernels(HOST, torch.bfloat16):
        return config.precision  # torch's own products would take a hundred times as long
    whole = 4 * stored_parameters(local_folder(config.base)) + resident_bytes() + KERNELS
    return "bf16" if whole > config.memory_bytes else config.precision


def _auto_is_whole(config: RunConfig) -> bool:
    return pick_format("auto", pick_device(config.device)) is torch.float32


def fitting(config: RunConfig, character: Character, base: Family) -> tuple[RunConfig, Planned]:
    """Return the settings with the first modes that keep the run below `config.memory`.

    What was set by hand stays as it is; `config` is resolved.

    Raises:
        DoesNotFitError: even the leanest modes need more.
    """
    limit = config.memory_bytes
    first: int | None = None
    least: int | None = None
    loaded = {}  # what was chosen before, by `loading_precision`
    if config.precision == "auto" and _auto_is_whole(config) and base.dtype is torch.bfloat16:
        loaded = {"precision": "bf16"}
    modes = list(_modes(config, host_apart=base.device.type != HOST.type))
    away, there = offloaded_bytes(base.denoiser, max(m.get("block_offload", 0) for m in modes))
    frozen = weight_bytes(base.denoiser) - away + there
    bare = max(besides_tensors(base, unload=True) + frozen, loaded_bytes(base))
    for mode in modes:
        if bare > limit:  # known without trying a pass
            least = bare
            break
        mode = loaded | mode
        chosen = with_mode(config, mode)
        if offloaded_bytes(base.denoiser, chosen.block_offload)[0] > (free_bytes(HOST) or math.inf):
            continue  # the host has no room for the blocks
        bound = limit if first else math.inf  # the first is told in any case
        process = besides_tensors(base, unload=chosen.unload)
        total = max(needed(chosen, character, base, process, bound).total, loaded_bytes(base))
        first, least = first or total, min(total, least or total)
        if total <= limit:
            return chosen, Planned(limit, total, first, mode, _in_words(config, mode, total, first))
    halved = ", --precision bf16" if base.dtype is torch.float32 else ""
    raise DoesNotFitError(
        f"memory is {config.memory}; the leanest run of {config.technique} on this base needs "
        f"at least {(least or bare) / 2**30:.2f} GiB (forecast); allow that much, or use a smaller "
        f"resolution{halved} or a technique with fewer trainable parameters"
    )


def with_mode(config: RunConfig, mode: Mode) -> RunConfig:
    """Return the settings with those of a mode in their places."""
    run = {key: value for key, value in mode.items() if key in RunConfig.model_fields}
    plan = {key: value for key, value in mode.items() if key in Schedule.model_fields}
    settings = dict(config.settings)
    for name in config.technique_names:
        own = {each.setting for each in lookup(Technique, name).leaner} & mode.keys()
        if own:
            settings[name] = {**settings.get(name, {}), **{key: mode[key] for key in own}}
    schedule = config.schedule.model_copy(update=plan)
    return config.model_copy(update={**run, "schedule": schedule, "settings": settings})


def _modes(config: RunConfig, *, host_apart: bool = False) -> Iterator[Mode]:
    """Yield the modes in order, without what was set by hand or means nothing here.

    Args:
        config: the run.
        host_apart: the device's memory is not the host's, which can then take something off it.
    """
    by_hand = config.model_fields_set | config.schedule.model_fields_set
    by_hand |= {key for own in config.settings.values() for key in own}
    whole = any(lookup(Technique, name).changes_weights for name in config.technique_names)
    leaner = [each for each in _leaner(config) if host_apart or not each.to_host]
    seen: list[Mode] = []
    for other, same in product(_inexact_modes(leaner), EXACT_MODES):
        mode = {**other, **same}
        mode = {key: value for key, value in mode.items() if key not in by_hand}
        if not mode.get("block_offload") or not host_apart or whole:
            mode.pop("block_offload", None)
        parts = {**config.schedule.model_dump(), **mode}
        split = (
            parts["gradient_accumulation"] > 1
            or (parts["micro_batch"] or 9**9) < parts["batch_size"]
        )
        if mode not in seen and not (split and parts["update"] == "in_backward"):
            seen.append(mode)
            yield mode


def _leaner(config: RunConfig) -> list[Leaner]:
    """Return the leaner settings of all techniques of a run."""
    return [each for name in config.technique_names for each in lookup(Technique, name).leaner]


def _inexact_modes(leaner: list[Leaner]) -> Iterator[Mode]:
    """Yield the modes that train something else, with the leaner settings of techniques in place.

    What moves to the host comes before another optimiser; what holds fewer bits comes after it, and
    stays with the optimiser that has next to no states.
    """
    plain, *smaller, least = LESS_STATE
    yield plain
    moved: Mode = {}
    for each in leaner:
        if each.to_host:
            moved = {**moved, each.setting: each.value}
            yield moved
            yield {**moved, "update": "in_backward"}
    yield from smaller
    reduced: Mode = {}
    for each in leaner:
        if not each.to_host:
            reduced = {**reduced, each.setting: each.value}
            yield {**smaller[-1], **reduced}
    yield {**least, **reduced}


def _in_words(config: RunConfig, mode: Mode, total: int, first: int) -> str:
    gib = f"{total / 2**30:.2f} GiB"
    if not mode:
        return f"forecast {gib}; it fits as it is"
    reasons = REASONS | {each.setting: each.reason for each in _leaner(config)}
    changes = ", ".join(f"{key} = {value} ({reasons[key]})" for key, value in mode.items())
    return f"forecast {gib} instead of {first / 2**30:.2f} GiB with {changes}"
