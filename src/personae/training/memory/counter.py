"""Bytes that tensors take while something runs, whatever the device and its allocator."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class _Counter(TorchDispatchMode):
    """Counts every storage that an operation brings into being, until it is freed."""

    def __init__(self, device: torch.device | None) -> None:
        super().__init__()
        self.device = device
        self.live, self.peak = 0, 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        given = {
            each.untyped_storage()._cdata
            for each in tree_iter((args, kwargs))
            if isinstance(each, torch.Tensor)
        }
        result = func(*args, **(kwargs or {}))
        if func.is_view:  # a fake view of a real tensor has a storage of its own
            return result
        for each in tree_iter(result):
            if isinstance(each, torch.Tensor) and self._counts(each):
                storage = each.untyped_storage()
                if storage._cdata not in given and storage not in self._known:
                    self._take(storage)
        return result

    def _counts(self, tensor: torch.Tensor) -> bool:
        return self.device is None or tensor.device.type == self.device.type

    def _take(self, storage: torch.UntypedStorage) -> None:
        size = storage.nbytes()
        self.live += size
        self.peak = max(self.peak, self.live)
        self._known.add(storage)
        weakref.finalize(storage, self._give, size)

    def _give(self, size: int) -> None:
        self.live -= size


def peak_allocated(run: Callable[[], object], device: torch.device | None = None) -> int:
    """Return the most bytes that tensors made by `run` took at once, on `device` or anywhere.

    Tensors that were there before do not count, nor does what a kernel needs inside itself.
    """
    counter = _Counter(device)
    with counter:
        run()
    return counter.peak
