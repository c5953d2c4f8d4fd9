"""Devices, number formats, seeds and memory: the only module that names a device.

Everything else is handed a `torch.device` and a `torch.dtype`.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from personae.errors import UsageError

DEVICES = ("auto", "cuda", "mps", "cpu")
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
HOST = torch.device("cpu")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
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
    kind, *number = name.split(":")
    if kind not in present or not all(part.isdecimal() for part in number) or len(number) > 1:
        raise UsageError(f"device is '{name}'; it must be one of {', '.join(DEVICES)}")
    if not present[kind]:
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


def zeros_on_host(shape: torch.Size, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return zeros in the host's memory, locked in place where `device` then copies quicker."""
    return torch.zeros(shape, dtype=dtype, device=HOST, pin_memory=device.type == "cuda")


def has_matrix_cores(device: torch.device) -> bool:
    """Say whether convolutions of the device multiply matrices whose rows are channels (CUDA)."""
    return device.type == "cuda"


def generator_for(seed: int, *stream: int | str) -> torch.Generator:
    """Return a generator on the host that depends on `seed` and the named stream alone.

    Deriving every draw from (seed, stream) instead of one running state makes a resumed run equal
    to an uninterrupted one, and gives every technique the same noise.
    """
    digest = hashlib.sha256(repr((seed, *stream)).encode()).digest()
    return torch.Generator(HOST).manual_seed(int.from_bytes(digest[:8], "big") >> 1)


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


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all it was asked, so that clocks read true."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@contextmanager
def seeded(device: torch.device, seed: int, *stream: int | str) -> Iterator[None]:
    """Make draws inside the block that take no generator (dropout) depend on (seed, stream) alone.

    The state outside the block is left as it was.
    """
    accelerators = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(accelerators):
        torch.manual_seed(generator_for(seed, *stream).initial_seed())
        yield
