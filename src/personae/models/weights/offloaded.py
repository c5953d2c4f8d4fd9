"""Blocks of a frozen network whose weights lie in the host's memory and are copied when needed.

Weights that are not trained never change, so they are copied one way, from the host to the device:
for the length of a block's forward pass, and once more when its gradients are due. What diffusers
calls group offloading ends with the forward pass, and a backward pass then finds no weights; here
the graph holds places of weights in the stead of weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from personae.core.devices import SHAPES_ONLY, Arriving, SideStream
from personae.core.memory import zeros_on_host
from personae.errors import UnsupportedError
from personae.models.weights.files import placeholder, weight_bytes
from personae.models.weights.quantised import is_quantised

Slots = list[tuple[nn.Module, str, nn.Parameter]]
ALIGNED = 16  # bytes; every number format may begin there


def repeated_blocks(network: nn.Module) -> list[nn.Module]:
    """Return the blocks that diffusers says `network` is made of, in the order they are called."""
    names = getattr(network, "_repeated_blocks", None) or ()
    return [module for module in network.modules() if type(module).__name__ in names]


def chosen_blocks(network: nn.Module, share: float) -> list[nn.Module]:
    """Return a share of the repeated blocks, spread evenly, so that others compute between copies.

    Args:
        network: of diffusers.
        share: 0 to 1.
    """
    blocks = repeated_blocks(network)
    ends = [int(i * share + 1e-6) for i in range(len(blocks) + 1)]
    return [block for i, block in enumerate(blocks) if ends[i + 1] > ends[i]]


def offloaded_bytes(network: nn.Module, share: float) -> tuple[int, int]:
    """Return what a share of blocks offloaded takes off the device, and what is there of it.

    That is two blocks: the one that computes and the one that comes next.
    """
    sizes = sorted(map(weight_bytes, chosen_blocks(network, share)), reverse=True)
    return sum(sizes), sum(sizes[:2])


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a tensor lies in the bytes of a block."""

    block: int
    dtype: torch.dtype
    shape: torch.Size
    stride: tuple[int, ...]
    start: int  # in numbers of its format

    def of(self, block_bytes: Tensor) -> Tensor:
        """Return the tensor."""
        return block_bytes.view(self.dtype).as_strided(self.shape, self.stride, self.start)


class Offloaded:
    """A share of a denoiser's blocks, offloaded to the host's memory.

    It acts from the moment on in which every weight of those blocks was taken. Results and
    gradients are those of the resident network, bit for bit.

    Attributes:
        share: of the repeated blocks, 0 to 1.
    """

    def __init__(self, network: nn.Module, share: float, device: torch.device) -> None:
        """Make room in the host's memory for a share of the blocks of `network`.

        Args:
            network: its parameters may be placeholders still.
            share: of its repeated blocks.
            device: where it computes.

        Raises:
            UnsupportedError: it has no repeated blocks, or they are quantised.
        """
        self.share, self._network, self._device = share, network, device
        self._blocks = chosen_blocks(network, share)
        if not repeated_blocks(network):
            raise UnsupportedError(
                f"block_offload is {share}, but a {type(network).__name__} names no blocks; leave "
                "it out"
            )
        if any(is_quantised(weight) for block in self._blocks for weight in block.parameters()):
            raise UnsupportedError(
                f"block_offload is {share}, but the denoiser is quantised, and then small enough "
                "to stay; leave one of both out"
            )
        self._places: dict[nn.Parameter, _Place] = {}
        self._host = [self._room(i, block) for i, block in enumerate(self._blocks)]
        self._missing = set(self._places)
        self._here: dict[int, Arriving] = {}
        self._stream = SideStream(device)
        self._before, self._last = -1, -1
        self._followed: dict[tuple[int, int], int] = {}
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._hooks: list[saved_tensors_hooks] = []

    def take(self, part: nn.Module) -> None:
        """Move the weights of `part` that belong to offloaded blocks to the host."""
        if not self._host:
            return
        for weight in part.parameters():
            if weight in self._missing:
                place = self._places[weight]
                place.of(self._host[place.block]).copy_(weight.data)
                self._missing.remove(weight)
                weight.data = placeholder(weight.shape, weight.dtype, weight.device)
        if not self._missing and not self._handles:
            self._attach()

    def end(self) -> None:
        """Put every weight back on the device."""
        self._detach()
        for weight, place in self._places.items():
            if weight not in self._missing:
                weight.data = place.of(self._host[place.block]).to(self._device, copy=True)
        self._host.clear()

    def _room(self, index: int, block: nn.Module) -> Tensor:
        """Return the host's memory for the weights of a block, one after the other."""
        end = 0
        for weight in block.parameters():
            start = -(-end // ALIGNED) * ALIGNED
            shape, width = weight.shape, weight.element_size()
            stride = torch.empty(shape, device=SHAPES_ONLY).stride()
            self._places[weight] = _Place(index, weight.dtype, shape, stride, start // width)
            end = start + weight.numel() * width
        size = torch.Size([-(-end // ALIGNED) * ALIGNED])
        return zeros_on_host(size, torch.uint8, self._device)

    def _attach(self) -> None:
        self._handles = [
            self._network.register_forward_pre_hook(self._begin),
            self._network.register_forward_hook(self._finish, always_call=True),
        ]
        for index, block in enumerate(self._blocks):
            slots = [
                (module, name, weight)
                for module in block.modules()
                for name, weight in module.named_parameters(recurse=False)
            ]
            self._handles += [
                block.register_forward_pre_hook(partial(self._enter, index, slots)),
                block.register_forward_hook(partial(_leave, slots), always_call=True),
            ]

    def _detach(self) -> None:
        while self._handles:
            self._handles.pop().remove()
        self._here.clear()

    @contextmanager
    def shapes_only(self) -> Iterator[None]:
        """Let calls copy nothing, for passes that are run on shapes alone."""
        attached = bool(self._handles)
        self._detach()
        try:
            yield
        finally:
            if attached:
                self._attach()

    def _begin(self, *_: Any) -> None:
        hooks = saved_tensors_hooks(self._packed, self._unpacked)
        hooks.__enter__()
        self._hooks.append(hooks)

    def _finish(self, *_: Any) -> None:
        self._hooks.pop().__exit__(None, None, None)

    def _enter(self, index: int, slots: Slots, *_: Any) -> None:
        """Let other tensors stand in the places of the parameters.

        The graph of a checkpointed block may keep the very object that it met, which must not be
        empty when its gradient is due.
        """
        content = self._bring(index)
        for module, name, weight in slots:
            module._parameters[name] = self._places[weight].of(content)  # type: ignore[assignment]

    def _packed(self, tensor: Tensor) -> Tensor | _Place:
        """Return what the graph keeps of a tensor: of an offloaded weight, where it lies."""
        if tensor.device.type != self._device.type:
            return tensor
        address = tensor.untyped_storage().data_ptr()
        for index, each in self._here.items():
            if each.tensor.untyped_storage().data_ptr() == address:
                start = int(tensor.storage_offset())
                return _Place(index, tensor.dtype, tensor.shape, tensor.stride(), start)
        return tensor

    def _unpacked(self, kept: Tensor | _Place) -> Tensor:
        return kept.of(self._bring(kept.block)) if isinstance(kept, _Place) else kept

    def _bring(self, index: int) -> Tensor:
        """Return the bytes of a block on the device, and let the one that should follow come."""
        if index != self._last:
            self._followed[self._before, self._last] = index
            self._before, self._last = self._last, index
        if index not in self._here:
            self._here[index] = self._stream.copy(self._host[index])
        content = self._here[index].arrived()
        following = self._followed.get((self._before, self._last))
        self._here = {i: each for i, each in self._here.items() if i in (index, following)}
        if following is not None and following not in self._here:
            self._here[following] = self._stream.copy(self._host[following])
        return content


def _leave(slots: Slots, *_: Any) -> None:
    for module, name, weight in slots:
        module._parameters[name] = weight
