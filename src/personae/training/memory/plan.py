"""The memory a run will take, before anything of it is allocated, and the modes that make it fit.

The passes of a step are run on tensors without values (torch's fake tensors), so a forecast needs
neither their memory nor their arithmetic. It counts tensors; what kernels need inside themselves
and what the allocator cannot give back is covered by `SLACK`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from personae.characters.character import Character
from personae.core.devices import HOST, pick_device
from personae.core.memory import held_bytes, resident_bytes
from personae.core.registry import lookup
from personae.errors import DoesNotFitError
from personae.models.acceleration.choice import FRUGAL, setting
from personae.models.acceleration.wide_products import lacks_kernels
from personae.models.family import Family
from personae.models.weights.files import stored_numbers, weight_bytes
from personae.models.weights.quantised import pick_format
from personae.models.weights.sources import local_folder
from personae.models.weights.unloaded import Aside
from personae.techniques.technique import Technique
from personae.training.activation_checkpoint import Recomputing
from personae.training.events import Planned
from personae.training.memory.passes import drawing_bytes, pass_bytes
from personae.training.optim.optimizers import held_on, state_bytes
from personae.training.settings import RunConfig, Schedule
from personae.training.setup import build_techniques, resting

SLACK = 0.03  # of the process at the end of a step; a margin, chosen and not derived
# On a processor, besides tensors: compiled kernels with their scratch memory, and what the heap
# holds between and behind tensors. Measured with toon and at the shape of Stable Diffusion 1.5
# (docs/results.md), where LoRA and Textual Inversion come within 4 % of the forecast; the first
# preview, whose shapes are others, leaves 30 MiB of kernels.
KERNELS = 2**30 // 8
HEAP = 0.12  # of the networks; 0 where `unload` gives all back as it is freed

Mode = dict[str, Any]
# Modes that change no number come first. Each later one is leaner and slower.
SAME_NUMBERS: tuple[Mode, ...] = (
    {},
    {"acceleration": "lean"},
    {"acceleration": "lean", "unload": True},
    {"acceleration": "lean", "unload": True, "gradient_checkpointing": "selective"},
    {"acceleration": "lean", "unload": True, "gradient_checkpointing": "full"},
    {"acceleration": "lean", "unload": True, "gradient_checkpointing": "full", "micro_batch": 1},
)
OTHER_NUMBERS: tuple[Mode, ...] = (
    {},
    {"offload": True},
    {"offload": True, "update": "in_backward"},
    {"optimizer": "adamw8bit"},
    {"optimizer": "adamw8bit", "update": "in_backward"},
    {"optimizer": "adamw8bit", "update": "in_backward", "weight_precision": "bf16_stochastic"},
    {"optimizer": "adafactor", "update": "in_backward", "weight_precision": "bf16_stochastic"},
)
REASONS = {
    "precision": "the base has two bytes a number in the place of four",
    "acceleration": "no second copies of weights are packed",
    "unload": "autoencoder and text encoders leave memory while they are not used",
    "gradient_checkpointing": "activations are computed again in the backward pass",
    "micro_batch": "a batch is computed one picture at a time",
    "offload": "what is trained and the optimiser's states lie in the host's memory",
    "optimizer": "the optimiser keeps smaller states",
    "update": "each gradient is used and freed inside the backward pass",
    "weight_precision": "what is trained is bf16 with stochastic rounding",
}


@dataclass(frozen=True, slots=True)
class Bytes:
    """What a run holds at the peak of a step, in bytes.

    Attributes:
        process: what is there besides networks: the interpreter and its libraries.
        networks: frozen weights that stay in memory.
        trained: what is learnt, with its moving average.
        states: of the optimiser.
        passes: activations and gradients, and merged weights where a technique has them; or what
            drawing previews takes, where that is more.
        copies: the most that packed copies of weights can take; 0 without acceleration.
    """

    process: int
    networks: int
    trained: int
    states: int
    passes: int
    copies: int = 0

    @property
    def total(self) -> int:
        """Return the peak."""
        whole = self.process + self.networks + self.trained + self.states + self.passes
        whole += self.copies
        return round(whole * (1 + SLACK))


def needed(
    config: RunConfig,
    character: Character,
    base: Family,
    process: int,
    limit: float = math.inf,
) -> Bytes:
    """Return what a run of `config` will hold on the device of `base`, which is left as it is.

    Args:
        config: the run.
        character: gives the number of pictures.
        base: loaded and bare.
        process: bytes of the process besides the networks.
        limit: passes are left out (0) where all else takes more bytes already.
    """
    schedule = _resolved(config, character, base)
    frozen = sum(map(weight_bytes, (*base.networks.values(), base.autoencoder)))
    with (
        base.aside.shapes_only(),
        FakeTensorMode(allow_non_fake_inputs=True),
        ExitStack() as stack,
    ):
        techniques = build_techniques(config, character, base)
        aside = _aside(config, base, techniques)
        frozen -= aside.bytes
        groups = [group for each in techniques for group in each.train().parameter_groups(1, 0)]
        parameters = [p for group in groups for p in group["params"]]
        for each in techniques:
            stack.callback(each.inject().eject)
        stack.callback(Recomputing(base.denoiser, schedule.gradient_checkpointing).end)
        if schedule.update == "in_backward":
            for parameter in parameters:
                parameter.register_post_accumulate_grad_hook(_drop_gradient)
        device_groups = held_on(base.device, groups)
        held = [p for group in device_groups for p in group["params"]]
        trained = sum(p.numel() * p.element_size() for p in held)
        average = 4 * sum(p.numel() for p in held) if schedule.ema else 0
        states = state_bytes(schedule.optimizer, device_groups)
        copies = 0 if config.acceleration in FRUGAL else 2 * weight_bytes(base.denoiser)
        without = Bytes(process, frozen, trained + average, states, 0, copies)
        if without.total > limit:
            return without
        passes = pass_bytes(config, schedule, base, techniques)
        drawing = aside.largest_part + drawing_bytes(config, schedule, base)
        return replace(without, passes=max(passes, drawing))


def loading_precision(config: RunConfig) -> str:
    """Return the format to load the base in: bf16 where auto's float32 is sure not to fit."""
    if config.precision != "auto" or config.memory is None or not _auto_is_whole(config):
        return config.precision
    if setting(config.acceleration) == "none" and lacks_kernels(HOST, torch.bfloat16):
        return config.precision  # torch's own products would take a hundred times as long
    whole = 4 * stored_numbers(local_folder(config.base)) + resident_bytes() + KERNELS
    return "bf16" if whole > config.memory_bytes else config.precision


def _auto_is_whole(config: RunConfig) -> bool:
    return pick_format("auto", pick_device(config.device)) is torch.float32


def fitting(config: RunConfig, character: Character, base: Family) -> tuple[RunConfig, Planned]:
    """Return the settings with the first modes that keep the run below `config.memory`.

    What was set by hand stays as it is.

    Raises:
        DoesNotFitError: even the leanest modes need more.
    """
    limit = config.memory_bytes
    first = least = None
    loaded = {}  # what was chosen before, by `loading_precision`
    if config.precision == "auto" and _auto_is_whole(config) and base.dtype is torch.bfloat16:
        loaded = {"precision": "bf16"}
    bare = max(besides_tensors(base, unload=True) + weight_bytes(base.denoiser), _loaded(base))
    for mode in _modes(config, host_apart=base.device.type != HOST.type):
        if bare > limit:  # known without trying a pass
            least = bare
            break
        mode = loaded | mode
        chosen = with_mode(config, mode)
        bound = limit if first else math.inf  # the first is told in any case
        process = besides_tensors(base, unload=chosen.unload)
        total = max(needed(chosen, character, base, process, bound).total, _loaded(base))
        first, least = first or total, min(total, least or total)
        if total <= limit:
            return chosen, Planned(limit, total, first, mode, _in_words(mode, total, first))
    halved = ", --precision bf16" if base.dtype is torch.float32 else ""
    raise DoesNotFitError(
        f"memory is {config.memory}; the leanest run of {config.technique} on this base needs "
        f"at least {least / 2**30:.2f} GiB (forecast); allow that much, or use a smaller "
        f"resolution{halved} or a technique that trains fewer numbers"
    )


def besides_tensors(base: Family, *, unload: bool = False) -> int:
    """Return the bytes that this process takes, and will, on the device besides tensors.

    Args:
        base: loaded.
        unload: of a run that puts networks aside, and then gives back what it frees.
    """
    if base.device.type != HOST.type:
        return 0
    networks = sum(map(weight_bytes, (*base.networks.values(), base.autoencoder)))
    heap = 0 if unload else round(HEAP * networks)
    in_memory = networks - base.aside.bytes_away
    return max(0, resident_bytes() - in_memory) + KERNELS + heap


def _loaded(base: Family) -> int:
    """Return what is held now, with every network in memory that a run has once together."""
    return resident_bytes() if base.device.type == HOST.type else held_bytes(base.device)


def with_mode(config: RunConfig, mode: Mode) -> RunConfig:
    """Return the settings with those of a mode in their places."""
    run = {key: value for key, value in mode.items() if key in RunConfig.model_fields}
    plan = {key: value for key, value in mode.items() if key in Schedule.model_fields}
    settings = dict(config.settings)
    for name, own in config.technique_configs().items():
        fitting = {key: value for key, value in mode.items() if key in type(own).model_fields}
        if fitting:
            settings[name] = {**settings.get(name, {}), **fitting}
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
    known = set(RunConfig.model_fields) | set(Schedule.model_fields)
    known |= {key for own in config.technique_configs().values() for key in type(own).model_fields}
    seen: list[Mode] = []
    others = [mode for mode in OTHER_NUMBERS if host_apart or "offload" not in mode]
    if "offload" not in known:
        others = [mode for mode in others if "offload" not in mode]
    for other, same in product(others, SAME_NUMBERS):
        mode = {**other, **same}
        mode = {key: value for key, value in mode.items() if key in known - by_hand}
        parts = {**config.schedule.model_dump(), **mode}
        split = (
            parts["gradient_accumulation"] > 1
            or (parts["micro_batch"] or 9**9) < parts["batch_size"]
        )
        if mode not in seen and not (split and parts["update"] == "in_backward"):
            seen.append(mode)
            yield mode


def _in_words(mode: Mode, total: int, first: int) -> str:
    gib = f"{total / 2**30:.2f} GiB"
    if not mode:
        return f"forecast {gib}; it fits as it is"
    changes = ", ".join(f"{key} = {value} ({REASONS[key]})" for key, value in mode.items())
    return f"forecast {gib} instead of {first / 2**30:.2f} GiB with {changes}"


def _resolved(config: RunConfig, character: Character, base: Family) -> Schedule:
    first = next(iter(config.technique_configs()))
    kind = lookup(Technique, first)
    recommended = base.recommended(first, kind.recommended)
    return config.schedule.resolved(len(character.references), recommended)


def _aside(config: RunConfig, base: Family, techniques: list[Technique]) -> Aside:
    """Return the networks that are put aside in a run."""
    parts: dict[str, nn.Module] = {"vae": base.autoencoder}
    if not any(each.trains_text for each in techniques):
        parts |= {name: each for name, each in base.networks.items() if name != "denoiser"}
    return resting(config, base, parts)


def _drop_gradient(parameter: Tensor) -> None:
    parameter.grad = None
