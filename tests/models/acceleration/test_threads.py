"""Pieces side by side: all are done, each with its share of the threads, and failures are told."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest
import torch

from personae.models.acceleration.threads import in_parallel

THREADS = 4


@pytest.fixture(autouse=True)
def several_threads() -> Iterator[None]:
    """Let torch have several threads, whatever the tests run with."""
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("at_once", [1, 2, 9])
def test_every_piece_is_computed_once_without_gradients(at_once: int) -> None:
    found = torch.zeros(7)
    weight = torch.ones((), requires_grad=True)

    def compute(number: int, factor: float) -> None:
        product = weight * number * factor
        assert not product.requires_grad
        found[number] += product

    in_parallel(compute, ((number, 2.0) for number in range(7)), at_once)
    assert found.tolist() == [2.0 * number for number in range(7)]


def test_pieces_share_torch_s_threads_and_leave_the_caller_its_own() -> None:
    """Two pieces wait for each other, so that both run at once."""
    both = threading.Barrier(2, timeout=60)
    seen = []

    def compute(number: int) -> None:
        both.wait()
        seen.append((torch.get_num_threads(), threading.get_ident()))

    in_parallel(compute, [(0,), (1,)], 2)
    assert [threads for threads, _ in seen] == [THREADS // 2] * 2
    assert threading.get_ident() not in {ident for _, ident in seen}
    assert torch.get_num_threads() == THREADS
    later = threading.Thread(target=lambda: seen.append((torch.get_num_threads(), 0)))
    later.start()
    later.join()
    assert seen[-1] == (THREADS, 0)


def test_a_single_one_at_once_stays_in_the_thread_that_asks() -> None:
    seen = []
    in_parallel(lambda: seen.append(threading.get_ident()), [()], 1)
    assert seen == [threading.get_ident()]


@pytest.mark.parametrize("at_once", [1, 2])
def test_what_a_piece_raises_is_raised(at_once: int) -> None:
    def compute(number: int) -> None:
        raise ValueError(f"piece {number}")

    with pytest.raises(ValueError, match="piece 3"):
        in_parallel(compute, [(3,)], at_once)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_a_forked_process_has_threads_of_its_own() -> None:
    done = torch.zeros(2)
    in_parallel(lambda place: done[place].add_(1), [(0,), (1,)], 2)
    child = os.fork()
    if not child:
        in_parallel(lambda place: done[place].add_(1), [(0,), (1,)], 2)
        os._exit(0 if done.tolist() == [2.0, 2.0] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
