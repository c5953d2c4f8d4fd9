"""Devices, precisions, seeds and memory on the machine at hand."""

from __future__ import annotations

import subprocess
import sys
from mmap import mmap

import pytest
import torch

from personae.core.devices import HOST, pick_device, pick_precision
from personae.core.memory import free_bytes, peak_bytes, resident_bytes
from personae.core.seeds import generator_for, seeded
from personae.errors import UsageError


def test_auto_picks_a_device_that_is_there() -> None:
    device = pick_device("auto")
    assert torch.ones(2, device=device).sum().item() == 2
    assert pick_device("cpu") == HOST


@pytest.mark.parametrize("name", ["gpu", "", "cpu:x", "tpu:0"])
def test_an_unknown_device_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"device is '{name}'; it must be one of auto, cuda, mps"):
        pick_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the machine has CUDA")
def test_a_device_the_machine_lacks_is_refused_with_a_way_out() -> None:
    with pytest.raises(UsageError, match="this machine has none; use --device auto"):
        pick_device("cuda:0")


def test_precisions_have_short_names() -> None:
    assert pick_precision("bf16", HOST) is torch.bfloat16
    assert pick_precision("auto", HOST) in (torch.float32, torch.bfloat16)
    assert pick_precision("auto", torch.device("mps")) is torch.float16
    with pytest.raises(UsageError, match="precision is 'fp8'; it must be auto, fp32, bf16, fp16"):
        pick_precision("fp8", HOST)


def test_a_draw_depends_on_seed_and_stream_alone() -> None:
    def draw(*stream: object) -> float:
        return torch.rand(1, generator=generator_for(*stream), dtype=torch.float64).item()

    assert draw(1, "noise", 5) == draw(1, "noise", 5)
    streams = [(1,), (2,), (1, "noise"), (1, "noise", 5), (1, "noise", 6), (1, "order", 5)]
    assert len({draw(*stream) for stream in streams}) == len(streams)


def test_dropout_inside_a_seeded_block_repeats_and_leaves_the_world_alone() -> None:
    before = torch.get_rng_state()
    drawn = []
    for stream in ((0, "a"), (0, "a"), (0, "b")):
        with seeded(HOST, *stream):
            drawn.append(torch.nn.functional.dropout(torch.ones(64), 0.5))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert torch.equal(torch.get_rng_state(), before)


def test_memory_is_counted_in_bytes() -> None:
    before = resident_bytes()
    held = mmap(-1, 2**26)  # pages of its own: an allocator could hand out some it already had
    for page in range(0, len(held), 4096):
        held[page] = 1
    assert resident_bytes() - before > 2**25
    assert peak_bytes(HOST) >= resident_bytes() - 2**20
    assert len(held) < free_bytes(HOST) + 2**30


FREED = """
import torch
from personae.core.memory import give_back_as_freed, resident_bytes
if {given_back}:
    give_back_as_freed()
for size in (4, 8, 16):  # the C library keeps larger blocks the larger those that were freed
    torch.ones(size * 2**18)
held = [torch.ones(2 * 2**20) for _ in range(32)]  # of 8 MiB each
last = torch.ones(2**18)
before = resident_bytes()
del held[:-1]
print(before - resident_bytes())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="resident pages are read from /proc")
def test_what_is_freed_leaves_the_process_where_that_was_asked_for() -> None:
    code = FREED.format(given_back=True)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(run.stdout) > 30 * 8 * 2**20
