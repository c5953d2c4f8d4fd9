"""The probe that times accelerations: all of one part in the same turns."""

from math import inf

import pytest
import torch
from torch import Tensor, nn

from personae.models.acceleration.acceleration import Acceleration
from personae.models.acceleration.timing import Call, _shares
from personae.models.family import Family
from personae.models.forwards import Forward


class Counting(Acceleration):
    """The plain way, counted."""

    name = "counting"
    calls = 0

    @classmethod
    def fits(cls, base: Family) -> bool:
        """Serve everywhere."""
        return True

    @classmethod
    def modules(cls, base: Family) -> dict[str, nn.Module]:
        """Return none."""
        return {}

    def forward_for(self, module: nn.Module, plain: Forward) -> Forward:
        """Return the plain forward, counted."""

        def forward(x: Tensor) -> Tensor:
            type(self).calls += 1
            return plain(x)

        return forward


class Refusing(Counting):
    """A way that this processor cannot go."""

    name = "refusing"

    def forward_for(self, module: nn.Module, plain: Forward) -> Forward:
        """Return a forward that fails as an operator of another version does."""

        def forward(x: Tensor) -> Tensor:
            type(self).calls += 1
            raise RuntimeError("no kernel")

        return forward


@pytest.mark.parametrize("training", [False, True])
def test_a_way_that_fails_costs_infinitely_and_the_others_are_timed(training: bool) -> None:
    calls = [Call(nn.Linear(3, 3), (torch.ones(2, 3),), {}, 1.0, count) for count in (1, 5)]
    Counting.calls = Refusing.calls = 0
    shares = _shares([Refusing, Counting], calls, training)
    assert shares["refusing"] == inf
    assert Refusing.calls == 1  # what failed is not tried again
    assert 0 < shares["counting"] < inf
    assert Counting.calls >= 3  # one to warm up and two that count, of the first shape at least


def test_where_nothing_is_called_nothing_can_be_gained() -> None:
    assert _shares([Counting], [], False) == {"counting": inf}
