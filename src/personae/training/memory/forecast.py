"""The memory that a run will need, told before anything of it is allocated.

The passes of a step are run on tensors without values (torch's fake tensors), so a forecast needs
neither their memory nor their arithmetic. It counts tensors; what kernels need inside themselves
and what the allocator cannot give back is covered by `SLACK`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace

from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from personae.characters.character import Character
from personae.core.devices import HOST
from personae.core.memory import held_bytes, resident_bytes
from personae.models.acceleration.choice import FRUGAL, setting
from personae.models.family import Family
from personae.models.weights.files import weight_bytes
from personae.models.weights.offloaded import offloaded_bytes
from personae.models.weights.unloaded import Unloaded
from personae.techniques.technique import Technique
from personae.training.activation_checkpoint import Recomputing
from personae.training.memory.passes import drawing_bytes, pass_bytes
from personae.training.optim.optimizers import held_on, state_bytes
from personae.training.settings import RunConfig
from personae.training.setup import build_techniques, unloadable

SLACK = 0.03  # of the process at the end of a step; a margin, chosen and not derived
# On a processor, besides tensors: compiled kernels with their scratch memory, and what the heap
# holds between and behind tensors. Measured with toon and at the shape of Stable Diffusion 1.5
# (docs/measurements/memory.md), where LoRA and Textual Inversion come within 4 % of the forecast;
# the first preview, whose shapes are others, leaves 30 MiB of kernels.
KERNELS = 2**30 // 8
HEAP = 0.12  # of the networks; 0 where `unload` gives all back as it is freed


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
        config: the run, resolved.
        character: gives the number of pictures.
        base: loaded and bare.
        process: bytes of the process besides the networks.
        limit: passes are left out (0) where all else takes more bytes already.
    """
    schedule = config.schedule
    with (
        base.unloaded.shapes_only(),
        base.offloaded.shapes_only() if base.offloaded else nullcontext(),
        FakeTensorMode(allow_non_fake_inputs=True),
        _attached(config, character, base) as techniques,
    ):
        unloaded = _unloaded(config, base, techniques)
        frozen = sum(map(weight_bytes, base.components.all.values())) - unloaded.bytes
        away, there = offloaded_bytes(base.denoiser, config.block_offload)
        frozen -= away - there
        groups = [group for each in techniques for group in each.train().parameter_groups(1, 0)]
        if schedule.update == "in_backward":
            for parameter in (p for group in groups for p in group["params"]):
                parameter.register_post_accumulate_grad_hook(_drop_gradient)
        device_groups = held_on(base.device, groups)
        held = [p for group in device_groups for p in group["params"]]
        trained = sum(p.numel() * p.element_size() for p in held)
        average = 4 * sum(p.numel() for p in held) if schedule.ema else 0
        states = state_bytes(schedule.optimizer, device_groups)
        copies = 0 if setting(config.acceleration) in FRUGAL else 2 * weight_bytes(base.denoiser)
        without = Bytes(process, frozen, trained + average, states, 0, copies)
        if without.total > limit:
            return without
        passes = pass_bytes(config, schedule, base, techniques)
        drawing = unloaded.largest_part + drawing_bytes(config, schedule, base)
        return replace(without, passes=max(passes, drawing))


@contextmanager
def _attached(
    config: RunConfig, character: Character, base: Family
) -> Iterator[Sequence[Technique]]:
    """Attach the techniques of a run to `base` for the length of a `with` block."""
    with ExitStack() as stack:
        techniques = build_techniques(config, character, base)
        for each in techniques:
            stack.callback(each.inject().eject)
        extent = config.schedule.gradient_checkpointing
        stack.callback(Recomputing(base.denoiser, extent).end)
        yield techniques


def besides_tensors(base: Family, *, unload: bool = False) -> int:
    """Return the bytes that this process takes, and will, on the device besides tensors.

    Args:
        base: loaded.
        unload: of a run that unloads networks, and then gives back what it frees.
    """
    if base.device.type != HOST.type:
        return 0
    networks = sum(map(weight_bytes, base.components.all.values()))
    heap = 0 if unload else round(HEAP * networks)
    in_memory = networks - base.unloaded.bytes_away
    return max(0, resident_bytes() - in_memory) + KERNELS + heap


def loaded_bytes(base: Family) -> int:
    """Return what is held now, with every network in memory that a run has once together."""
    return resident_bytes() if base.device.type == HOST.type else held_bytes(base.device)


def _unloaded(config: RunConfig, base: Family, techniques: Sequence[Technique]) -> Unloaded:
    """Return the networks that are unloaded in a run."""
    parts = base.components.autoencoder
    if not any(each.trains_text for each in techniques):
        parts |= base.components.text_encoders
    return unloadable(config, base, parts)


def _drop_gradient(parameter: Tensor) -> None:
    parameter.grad = None
