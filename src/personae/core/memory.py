"""Memory of the process and of devices: how much is held, free, and given back."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

from personae.core.devices import HOST

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def zeros_on_host(shape: torch.Size, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return zeros in the host's memory, locked in place where `device` then copies quicker."""
    return torch.zeros(shape, dtype=dtype, device=HOST, pin_memory=device.type == "cuda")


def peak_bytes(device: torch.device) -> int:
    """Return the most memory this process has held: CUDA's allocator, else resident pages."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        # The process's own mark: getrusage's starts at the size of whoever started the process.
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def resident_bytes() -> int:
    """Return the memory this process holds now, in bytes (0 where the system does not say)."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def held_bytes(device: torch.device) -> int:
    """Return the memory held now: CUDA's allocator, else the process's resident pages."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return resident_bytes()


def free_bytes(device: torch.device) -> int | None:
    """Return the memory still free on `device` in bytes, or None where it cannot be known."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    available = next((line for line in lines if line.startswith("MemAvailable")), None)
    return int(available.split()[1]) * 1024 if available else None


def give_back_freed() -> None:
    """Hand memory that was freed back to the system, where the C library keeps it (glibc).

    It keeps pieces below 32 MiB for later, which is most of a network: of 1.6 GiB of Stable
    Diffusion 1.5's U-Net in bf16 only 0.3 GiB leave the process when its tensors go.
    """
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def give_back_as_freed(at_once: bool = True) -> None:
    """Let memory leave the process as soon as it is freed, in blocks of 2 MiB and more (glibc).

    Left alone, glibc keeps ever larger blocks, up to 32 MiB, which is quicker where a pass needs
    many of them. It acts on what is allocated from now on: weights of Stable Diffusion 1.5's shape
    that were read before stay among what is kept, and a step held 0.2 GiB more.

    Args:
        at_once: False = keep blocks as glibc comes to do by itself.
    """
    with suppress(OSError, AttributeError):  # another C library
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_THRESHOLD, 2**21 if at_once else 2**25)
        library.mallopt(M_TRIM_THRESHOLD, 2**17 if at_once else 2**26)


def reset_peak(device: torch.device) -> None:
    """Start counting the peak anew where the device can (CUDA)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
