"""Products of 16-bit numbers where a processor has no kernels: widened, and rounded once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from personae.core.devices import HOST, SHAPES_ONLY
from personae.models import load
from personae.models.acceleration.threads import in_parallel
from personae.models.acceleration.wide_products import (
    PRODUCTS,
    Room,
    Widening,
    lacks_kernels,
    widened,
)
from personae.models.load import load_base
from personae.models.toys import tiny_stable_diffusion
from personae.training.memory.counter import peak_allocated
from tiny_world import noisy

FORMATS = (torch.bfloat16, torch.float16)
Operation = Callable[..., Tensor]

OPERATIONS: dict[str, tuple[Operation, list[tuple[int, ...]]]] = {
    "matrices": (torch.mm, [(5, 7), (7, 3)]),
    "matrices and a bias": (torch.addmm, [(3,), (5, 7), (7, 3)]),
    "batches": (torch.bmm, [(2, 5, 7), (2, 7, 3)]),
    "batches and a table": (torch.baddbmm, [(2, 5, 3), (2, 5, 7), (2, 7, 3)]),
    "linear": (functional.linear, [(2, 4, 7), (3, 7), (3,)]),
    "convolution": (functional.conv2d, [(2, 3, 6, 6), (4, 3, 3, 3), (4,)]),
    "attention": (functional.scaled_dot_product_attention, [(1, 2, 6, 8)] * 3),
}


@pytest.fixture(params=FORMATS, ids=str)
def half(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    """Yield a format whose products are widened while the test runs."""
    with Widening():
        yield request.param


def drawn(shapes: list[tuple[int, ...]], dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(s, generator=generator).to(dtype).requires_grad_() for s in shapes]


def with_gradients(operation: Operation, operands: list[Tensor]) -> list[Tensor]:
    """Return the result, and what comes back to each operand for a gradient of ones."""
    result = operation(*operands)
    return [result.detach(), *torch.autograd.grad(result, operands, torch.ones_like(result))]


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_product_is_that_of_float32_rounded_once_and_so_are_its_gradients(
    name: str, half: torch.dtype
) -> None:
    operation, shapes = OPERATIONS[name]
    operands = drawn(shapes, half)
    found = with_gradients(operation, operands)
    wide = [each.detach().float().requires_grad_() for each in operands]
    for mine, theirs in zip(found, with_gradients(operation, wide), strict=True):
        assert mine.dtype == half
        if name == "attention":  # its gradients come from a result that was rounded before
            torch.testing.assert_close(mine.float(), theirs, rtol=0.02, atol=0.02)
        else:
            assert torch.equal(mine, theirs.to(half))


def with_and_without(name: str, dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
    """Return results and gradients on operands in `dtype` with widening on, and torch's own."""
    operation, shapes = OPERATIONS[name]
    operands = drawn(shapes, dtype)
    plain = with_gradients(operation, operands)
    with Widening():
        return with_gradients(operation, operands), plain


@pytest.mark.parametrize("name", OPERATIONS)
def test_it_agrees_with_torch_s_own_to_the_format_s_rounding(name: str) -> None:
    for mine, theirs in zip(*with_and_without(name, torch.bfloat16), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0.02, atol=0.05)


@pytest.mark.parametrize("name", OPERATIONS)
def test_other_formats_keep_torch_s_kernels_and_bits(name: str) -> None:
    assert all(map(torch.equal, *with_and_without(name, torch.float32)))


def test_a_result_is_written_where_it_is_asked_for(half: torch.dtype) -> None:
    (a, b), room = drawn([(5, 7), (7, 3)], half), torch.empty(5, 3, dtype=half)
    with torch.no_grad():
        assert torch.matmul(a, b, out=room) is room
        assert torch.equal(room, a @ b)


def test_operands_of_one_thread_are_not_those_of_another(half: torch.dtype) -> None:
    """Each keeps memory of its own for them, of larger and smaller products in turn."""
    pairs = [
        [each.detach() for each in drawn([(size, 64), (64, size)], half)] for size in (96, 32) * 8
    ]

    def product(pair: list[Tensor]) -> Tensor:
        with Widening():
            return pair[0] @ pair[1]

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(product, pairs * 4))
    for (a, b), mine in zip(pairs * 4, found, strict=True):
        assert torch.equal(mine, (a.float() @ b.float()).to(half))


def test_pieces_in_parallel_are_widened_where_their_caller_is() -> None:
    a, b = (each.detach() for each in drawn([(64, 512), (512, 64)], torch.float16))
    rows = [torch.empty(32, 64, dtype=torch.float16) for _ in range(2)]

    def piece(part: Tensor, out: Tensor) -> None:
        out.copy_(part @ b)

    with Widening():
        in_parallel(piece, zip(a.split(32), rows, strict=True), at_once=2)
    assert torch.equal(torch.cat(rows), (a.float() @ b.float()).half())


def test_operands_keep_their_layout(half: torch.dtype) -> None:
    """Transposed, with channels last, repeated or cut out of a larger one."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(6, 6, generator=generator).to(half) for _ in range(2))
    for left in (a, a.t(), a[:, :1].expand(6, 6), a[1:4, 2:]):
        right = b[: left.shape[1]]
        wanted = (left.float() @ right.float()).to(half)
        assert torch.equal(left @ right, wanted)
    x, weight = (
        torch.randn(shape, generator=generator).to(half) for shape in ((1, 4, 5, 5), (2, 4, 3, 3))
    )
    x = x.contiguous(memory_format=torch.channels_last)
    found = functional.conv2d(x, weight)
    assert torch.equal(found, functional.conv2d(x.float(), weight.float()).to(half))
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_torch_keeps_its_own_kernels_outside() -> None:
    a, b = (each.detach() for each in drawn([(64, 512), (512, 64)], torch.bfloat16))
    plain = peak_allocated(lambda: a @ b)
    with Widening():
        assert peak_allocated_inside(lambda: a @ b) > plain
        with ThreadPoolExecutor(1) as other:  # a thread of a host program, for one
            assert other.submit(peak_allocated, lambda: a @ b).result() == plain
    assert peak_allocated(lambda: a @ b) == plain


def peak_allocated_inside(run: Callable[[], object]) -> int:
    """Return what `run` takes with a room of its own for operands."""

    def widening() -> None:
        with Widening(Room()):
            run()

    return peak_allocated(widening)


def test_nothing_widened_is_kept_for_the_backward_pass(half: torch.dtype) -> None:
    x, *weights = drawn([(16, 64), *[(64, 64)] * 8], half)
    kept: set[torch.dtype] = set()

    def keep(tensor: Tensor) -> Tensor:
        kept.add(tensor.dtype)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        for weight in weights:
            x = functional.linear(x, weight)
    assert kept == {half}


def test_a_forecast_counts_what_is_widened() -> None:
    """On tensors without values, which no kernel sees."""
    x, weight = (
        torch.empty(shape, dtype=torch.bfloat16, device=SHAPES_ONLY)
        for shape in ((4, 64), (64, 64))
    )

    def product() -> None:
        functional.linear(x, weight)

    assert peak_allocated(product) == 2 * 4 * 64
    assert peak_allocated_inside(product) >= 4 * (4 * 64 + 64 * 64 + 4 * 64)


def test_only_a_processor_without_kernels_is_helped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert lacks_kernels(HOST, torch.bfloat16)
    assert not lacks_kernels(HOST, torch.float32)
    assert not lacks_kernels(torch.device("cuda"), torch.bfloat16)


class Watching(TorchDispatchMode):
    """Notes the formats in which matrices are multiplied and convolutions computed."""

    def __init__(self) -> None:
        super().__init__()
        self.formats: set[torch.dtype] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if func in PRODUCTS:
            self.formats.add(next(each for each in args if isinstance(each, Tensor)).dtype)
        return func(*args, **(kwargs or {}))


def formats_of(run: Callable[[], object]) -> set[torch.dtype]:
    """Return the formats in which `run` computes products."""
    with Watching() as watching:
        run()
    return watching.formats


@pytest.mark.parametrize(("acceleration", "helped"), [("none", False), ("lean", True)])
def test_a_base_in_16_bits_is_computed_as_its_processor_can(
    acceleration: str, helped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its own calls, and in a backward pass that asks for it; elsewhere torch is plain."""
    monkeypatch.setattr(load, "lacks_kernels", lambda *_: True)
    tiny_stable_diffusion(1).save_pretrained(tmp_path / "base")
    base = load_base(tmp_path / "base", device="cpu", precision="bf16", acceleration=acceleration)
    wide, plain = {torch.float32 if helped else torch.bfloat16}, {torch.bfloat16}
    latents, times = noisy(base)
    pixels = torch.zeros(1, 3, 64, 64)
    text = base.encode_text(["a can", "a man"])
    assert formats_of(lambda: base.encode_text(["a can"])) == wide
    assert formats_of(lambda: base.decode_image(base.encode_image(pixels))) == wide
    denoised: list[Tensor] = []
    latents.requires_grad_()
    assert formats_of(lambda: denoised.append(base.denoise(latents, times, text))) == wide
    assert denoised[0].dtype == torch.bfloat16
    a, b = (each.detach() for each in drawn([(5, 7), (7, 3)], torch.bfloat16))
    assert formats_of(lambda: a @ b) == plain

    def backward() -> None:
        with widened(base):
            denoised[0].sum().backward()

    assert formats_of(backward) == wide
    assert latents.grad.isfinite().all()


def test_a_call_that_is_broken_off_leaves_torch_as_it_was(half: torch.dtype) -> None:
    a, b = (each.detach() for each in drawn([(5, 7), (7, 3)], half))

    def broken() -> None:
        with Widening():
            raise KeyboardInterrupt

    with ThreadPoolExecutor(1) as thread:
        with pytest.raises(KeyboardInterrupt):
            thread.submit(broken).result()
        assert thread.submit(formats_of, lambda: a @ b).result() == {half}
