"""A step reads nothing of what the networks compute until its passes are over."""

from __future__ import annotations

import traceback
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from personae.core.devices import SHAPES_ONLY
from personae.errors import UnsupportedError
from personae.models.family import Family
from personae.training.optim.optimizers import LEAN, make_optimizer
from personae.training.optim.updates import make_update
from personae.training.setup import captions_of, encode_captions
from personae.training.trainer import Trainer
from tiny_world import bases, run_config, techniques, trainer_of

aten = torch.ops.aten
READ_BY_OPERATORS = (  # what waits for a device, as its result or its shape is needed on the host
    aten._local_scalar_dense,
    aten.is_nonzero,
    aten.equal,
    aten.nonzero,
    aten.masked_select,
    aten._unique2,
)
READ_BY_METHODS = (Tensor.tolist, Tensor.numpy, Tensor.__array__, Tensor.cpu)


class HostReads(TorchDispatchMode):
    """Notes where values are read that the networks had a part in.

    Draws and times are made by the host, and may be read there; on a processor nothing but their
    descent tells them from what a device would hold.
    """

    def __init__(self, trainer: Trainer) -> None:
        super().__init__()
        self.places: list[str] = []
        self._computed: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()
        networks = [*trainer.base.components.all.values(), *trainer.techniques]
        for weight in (weight for network in networks for weight in network.parameters()):
            self._computed.add(weight.untyped_storage())

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        computed = self.computed(args, kwargs)
        if computed and func.overloadpacket in READ_BY_OPERATORS:
            self.note(str(func))
        result = func(*args, **(kwargs or {}))
        for each in tree_iter(result) if computed else ():
            if isinstance(each, Tensor):
                self._computed.add(each.untyped_storage())
        return result

    def computed(self, *given: Any) -> bool:
        """Say whether any of the tensors given comes from a network."""
        tensors = (each for each in tree_iter(given) if isinstance(each, Tensor))
        return any(each.untyped_storage() in self._computed for each in tensors)

    def note(self, what: str) -> None:
        """Note what reads, and the line of ours that called it."""
        ours = [line for line in traceback.extract_stack() if "/personae/" in line.filename]
        self.places.append(f"{what} in {ours[-1].name}")


class MethodReads(TorchFunctionMode):
    """Notes reads of methods that need no operator on a processor."""

    def __init__(self, reads: HostReads) -> None:
        super().__init__()
        self.reads = reads

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in READ_BY_METHODS and self.reads.computed(args):
            self.reads.note(func.__name__)
        return func(*args, **(kwargs or {}))


def host_reads(trainer: Trainer) -> list[str]:
    """Return where the second step of a trainer reads, with its caches filled."""
    try:
        if trainer.texts.frozen:
            encode_captions(trainer.texts, captions_of(trainer.pictures))
        trainer.step(0)
        reads = HostReads(trainer)
        with reads, MethodReads(reads):
            trainer.step(1)
        return reads.places
    finally:
        trainer.eject()


@pytest.mark.parametrize("technique", techniques())
@pytest.mark.parametrize("kind", bases())
def test_loss_and_norm_are_all_that_a_step_reads(
    technique: str, kind: str, character: Path
) -> None:
    schedule = {"prior": "prediction", "micro_batch": 1, "batch_size": 2, "max_grad_norm": 1e-3}
    config = run_config(character, technique=technique, schedule=schedule)
    try:
        trainer = trainer_of(config, bases()[kind])
    except UnsupportedError as error:
        pytest.skip(str(error))
    assert host_reads(trainer) == ["tolist in read"]


def test_the_check_sees_what_is_read(character: Path, sd1: Family) -> None:
    trainer = trainer_of(run_config(character), sd1)

    def read(_: torch.nn.Module, __: Any, output: Any) -> None:
        output[0].mean().item()
        bool(output[0].mean() > 0)
        output[0].detach().cpu()

    handle = sd1.denoiser.register_forward_hook(read)
    try:
        found = host_reads(trainer)
    finally:
        handle.remove()
    assert [each.partition(" in ")[0] for each in found] == [
        "aten._local_scalar_dense.default",
        "aten._local_scalar_dense.default",
        "cpu",
        "tolist",
    ]


@pytest.mark.parametrize("name", LEAN)
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_updates_inside_the_backward_pass_read_nothing_of_a_device(
    name: str, rounding: str
) -> None:
    """The device without values would refuse."""
    weights = [
        torch.nn.Parameter(torch.zeros(shape, device=SHAPES_ONLY)) for shape in [(9,), (70, 70)]
    ]
    group = {"params": weights, "lr": 1e-3, "weight_decay": 0.0, "rounding": rounding}
    update = make_update("in_backward", make_optimizer(name, [group], lean=True), 1.0)
    before = [weight._version for weight in weights]
    update.begin()
    sum(weight.square().sum() for weight in weights).backward()
    assert all(weight.grad is None for weight in weights)
    assert all(weight._version > old for weight, old in zip(weights, before, strict=True))
