"""Devices and number formats; with its neighbours in this room, the only one that names a device.

Everything else is handed a `torch.device` and a `torch.dtype`.
"""

from __future__ import annotations

import hashlib
import platform
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from personae.core.device_names import DEVICES, check_device
from personae.errors import UsageError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
HOST = torch.device("cpu")
SHAPES_ONLY = torch.device("meta")  # tensors without values: operations are counted, not done


def pick_device(name: str = "auto") -> torch.device:
    """Return the device called `name`; `auto` prefers CUDA, then MPS, then the CPU.

    Raises:
        UsageError: the name is unknown or the machine has no such device.
    """
    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
        "meta": True,
    }
    if name == "auto":
        return torch.device(next(kind for kind in DEVICES[1:] if present[kind]))
    check_device(name)
    if not present[name.partition(":")[0]]:
        raise UsageError(f"device is '{name}', but this machine has none; use --device auto")
    return torch.device(name)


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the number format of frozen weights.

    `auto` is bf16 where the device computes in it (fp16 on older CUDA cards and on MPS), else fp32.

    Raises:
        UsageError: the name is none of auto, fp32, bf16, fp16.
    """
    if name in PRECISIONS:
        return PRECISIONS[name]
    if name != "auto":
        raise UsageError(f"precision is '{name}'; it must be auto, {', '.join(PRECISIONS)}")
    match device.type:
        case "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        case "mps":
            return torch.float16
        case "cpu" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported():
            return torch.bfloat16
        case _:
            return torch.float32


def has_matrix_cores(device: torch.device) -> bool:
    """Say whether convolutions of the device multiply matrices whose rows are channels (CUDA)."""
    return device.type == "cuda"


def describe(device: torch.device) -> str:
    """Return the model of the device, as far as the system says it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    wanted = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags")
    facts = {key.strip(): value for key, _, value in (line.partition(":") for line in lines)}
    named = facts.get("model name", platform.machine()).strip()
    digest = hashlib.sha256(repr([facts.get(fact) for fact in wanted]).encode()).hexdigest()
    return f"{named} {digest[:8]}"


def at_hand(scalar: Tensor) -> float | Tensor:
    """Return the number where it lies in the host's memory, else the tensor: reading would wait."""
    return scalar.item() if scalar.device == HOST else scalar


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all it was asked, so that clocks read true."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@dataclass(frozen=True, slots=True)
class Arriving:
    """A copy that is on its way to a device."""

    tensor: Tensor
    event: torch.Event | None

    def arrived(self) -> Tensor:
        """Return the copy; what the device computes from now on waits until it is whole."""
        if self.event is not None:
            current = torch.accelerator.current_stream(self.tensor.device)
            current.wait_event(self.event)
            self.tensor.record_stream(current)  # its memory is free only once `current` is done
        return self.tensor


class SideStream:
    """Copies from the host to a device, while the device computes where it can do both (CUDA)."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.Stream(device) if device.type == "cuda" else None

    def copy(self, tensor: Tensor) -> Arriving:
        """Begin to copy a tensor of the host; the host waits unless it is locked in place."""
        if self._stream is None:
            return Arriving(tensor.to(self._device, copy=True), None)
        with self._stream:
            copied = tensor.to(self._device, non_blocking=True)
        return Arriving(copied, self._stream.record_event())
