from collections.abc import Callable

import pytest
from torch import Tensor

from format_world import KINDS, base_of, picture, pipeline
from personae.models.family import Family


@pytest.fixture(scope="session")
def pipes() -> dict:
    return {kind: pipeline(kind) for kind in KINDS}


@pytest.fixture(scope="session")
def bases(pipes) -> dict[str, Family]:
    return {kind: base_of(pipe, kind) for kind, pipe in pipes.items()}


@pytest.fixture(scope="session")
def plain(pipes) -> dict[str, Tensor]:
    return {kind: picture(pipe) for kind, pipe in pipes.items()}


@pytest.fixture(scope="session")
def fresh_pipeline() -> Callable:
    return pipeline
