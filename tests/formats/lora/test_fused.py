"""Several layers as one matrix, and back."""

import torch

from personae.artifacts.low_rank import LowRankUpdate
from personae.formats.lora.fused import fuse, split

ROWS = [6, 4, 5]


def update(rows: int, rank: int, scale: float = 1.0) -> LowRankUpdate:
    generator = torch.Generator().manual_seed(rows)
    down, up = torch.randn(rank, 3, generator=generator), torch.randn(rows, rank)
    return LowRankUpdate(down, up, scale)


def test_a_fused_update_changes_each_part_as_its_own_does() -> None:
    updates = [update(6, 2, 0.5), update(4, 1), update(5, 3, 2.0)]
    fused = fuse(updates, ROWS)
    assert fused.rank == 6
    assert torch.equal(fused.delta(), torch.cat([each.delta() for each in updates]))


def test_splitting_undoes_fusing() -> None:
    updates = [update(6, 2), None, update(5, 3)]
    back = split(fuse(updates, ROWS), ROWS)
    assert back[1] is None
    for before, after in zip(updates[::2], back[::2], strict=True):
        assert torch.equal(before.down, after.down)
        assert torch.equal(before.up, after.up)


def test_an_update_that_was_trained_on_the_whole_matrix_is_given_to_every_part() -> None:
    whole = update(15, 2, 0.25)
    parts = split(whole, ROWS)
    assert [part.rank for part in parts] == [2, 2, 2]
    assert torch.equal(torch.cat([part.delta() for part in parts]), whole.delta())


def test_the_wider_number_format_of_two_is_kept() -> None:
    narrow = update(6, 2)
    narrow = LowRankUpdate(narrow.down.bfloat16(), narrow.up.bfloat16())
    fused = fuse([narrow, update(4, 1), None], ROWS)
    assert fused.up.dtype == fused.down.dtype == torch.float32
