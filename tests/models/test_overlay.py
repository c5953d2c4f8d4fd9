"""Deltas laid over weights: the sum, its gradients, and that no piece of it is forgotten."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from personae.models.overlay import PIECE, WeightOverlay


def plain_sum(weight: Tensor, *deltas: Tensor) -> Tensor:
    """Return the sum as autograd would make it, in one piece."""
    return sum(deltas, start=weight.float()).to(weight.dtype)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 4), (2, PIECE + 7)])
@pytest.mark.parametrize("across", [False, True])
def test_weights_in_pieces_equal_the_sum_and_its_gradient(
    dtype: torch.dtype, shape: tuple[int, int], across: bool
) -> None:
    """`across`: with columns side by side in memory, which is summed whole."""
    layer = nn.Linear(shape[1], shape[0], bias=False).to(dtype).requires_grad_(False)
    layer.weight.data = drawn(*shape).to(dtype)
    if across:
        layer.weight.data = layer.weight.data.t().contiguous().t()
    before = layer.weight.detach().clone()
    delta = (drawn(*shape, seed=1) * 1e-3).requires_grad_(True)
    overlay = WeightOverlay(layer)
    overlay.add("one", lambda name: delta, lambda: (delta._version,))
    overlay.add("two", lambda name: torch.ones(shape), lambda: ("always",))
    x = drawn(5, shape[1], seed=2).to(dtype)
    layer(x).float().square().sum().backward()
    assert torch.equal(layer.weight, before)
    overlay.settle()
    wanted = delta.detach().clone().requires_grad_(True)
    merged = plain_sum(before, wanted, torch.ones(shape))
    assert torch.equal(layer.weight, merged)
    nn.functional.linear(x, merged).float().square().sum().backward()
    assert torch.equal(delta.grad, wanted.grad)
    overlay.remove("one")
    overlay.remove("two")
    assert torch.equal(layer.weight, before)


def test_settling_merges_now_what_a_forward_pass_would_merge() -> None:
    layer = nn.Linear(3, 2).requires_grad_(False)
    overlay = WeightOverlay(layer)
    overlay.settle()
    before = layer.weight
    overlay.add("one", lambda name: torch.ones_like(before) if name == "weight" else None,
                lambda: (1,))  # fmt: skip
    assert layer.weight is before
    overlay.settle()
    assert torch.equal(layer.weight, before + 1)
    overlay.remove("one")
    assert layer.weight is before


def test_deltas_that_come_for_others_are_merged_where_those_were() -> None:
    layer = nn.Linear(3, 2).requires_grad_(False)
    overlay, before = WeightOverlay(layer), layer.weight

    def lay(owner: str, size: float) -> None:
        delta = torch.full_like(before, size)
        overlay.add(owner, lambda name: delta if name == "weight" else None, lambda: (owner,))

    lay("one", 1.0)
    overlay.settle()
    memory = layer.weight.data_ptr()
    with overlay.exchanging():
        overlay.remove("one")
        assert layer.weight is before
        lay("two", 2.0)
    overlay.settle()
    assert layer.weight.data_ptr() == memory
    assert torch.equal(layer.weight, before + 2)
    with overlay.exchanging():
        overlay.remove("two")
    assert layer.weight is before
    assert not overlay._spare  # nothing stays behind when nothing comes


def test_a_pass_without_gradients_and_one_with_them_follow_each_other() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)).requires_grad_(False)
    x = drawn(4, 3)
    plain = network(x)
    delta = torch.zeros(3, 3, requires_grad=True)
    overlay = WeightOverlay(network)
    overlay.add("one", lambda name: delta if name == "0.weight" else None,
                lambda: (delta._version,))  # fmt: skip
    for _ in range(2):
        with torch.no_grad():
            delta += 1
            still = network(x)
        moving = network(x)
        assert torch.equal(still, moving)
        assert not torch.equal(still, plain)
        (gradient,) = torch.autograd.grad(moving.sum(), delta)
        assert gradient.abs().sum() > 0
    overlay.remove("one")
    assert torch.equal(network(x), plain)


def test_a_module_that_breaks_gets_its_own_weight_back() -> None:
    layer = nn.Linear(3, 2).requires_grad_(False)
    own = layer.weight
    overlay = WeightOverlay(layer)
    delta = torch.ones(2, 3, requires_grad=True)
    overlay.add("one", lambda name: delta if name == "weight" else None, lambda: (1,))
    with pytest.raises(RuntimeError):
        layer(drawn(4, 5))
    assert layer.weight is own


def test_each_gradient_reaches_its_delta_before_earlier_layers_have_theirs() -> None:
    network = nn.Sequential(*(nn.Linear(3, 3) for _ in range(4))).requires_grad_(False)
    deltas = {f"{i}.weight": torch.zeros(3, 3, requires_grad=True) for i in range(4)}
    order: list[str] = []
    for name, delta in deltas.items():
        delta.register_post_accumulate_grad_hook(lambda _, name=name: order.append(name))
    for i, layer in enumerate(network):
        layer.register_full_backward_hook(lambda *_, i=i: order.append(f"{i} is through"))
    overlay = WeightOverlay(network)
    overlay.add("one", deltas.get, lambda: (1,))
    network(drawn(4, 3).requires_grad_(True)).sum().backward()
    assert [name for name in order if name in deltas] == [f"{i}.weight" for i in (3, 2, 1, 0)]
    assert order.index("3.weight") < order.index("1 is through")
