"""Which pipelines are refused before they are loaded."""

from __future__ import annotations

import pytest

from personae.errors import BaseError
from personae.models.weights.pipelines import require_diffusers


def test_an_older_diffusers_is_told_which_one_is_needed() -> None:
    with pytest.raises(BaseError, match=r"'x' needs diffusers 99\.1 or later.*pip install"):
        require_diffusers((99, 1), "x")
