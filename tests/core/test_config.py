"""Settings: unknown keys and wrong values are refused in one line, and TOML gives them back."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

from personae.core.config import Config, read_toml, to_toml
from personae.errors import UsageError
from personae.training.settings import RunConfig


class Inner(Config):
    """A table."""

    rank: int = Field(4, ge=1)
    """Rank."""


class Outer(Config):
    """A file."""

    name: str
    """Name."""
    share: float | None = None
    """Share."""
    kind: Literal["quick", "slow"] = "slow"
    """Kind."""
    inner: Inner = Inner()
    """Table."""


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"name": "x", "shar": 1}, "run.toml: unknown key 'shar'. Did you mean 'share'?"),
        ({"name": "x", "inner": {"rnk": 1}}, "unknown key 'inner.rnk'. Did you mean 'rank'?"),
        ({"name": "x", "rank": 1}, "unknown key 'rank'. Did you mean 'inner.rank'?"),
        ({"name": "x", "iner": {}}, "unknown key 'iner'. Did you mean 'inner'?"),
        ({"name": "x", "zzzzzz": 1}, "unknown key 'zzzzzz'."),
        ({"name": "x", "kind": "quik"}, "should be 'quick' or 'slow'. Did you mean 'quick'?"),
        ({}, "'name' is missing; add it"),
        ({"name": "x", "inner": {"rank": 0}}, "'inner.rank' is 0; input should be greater than"),
        ({"name": "x", "share": "much"}, "'share' is 'much'; input should be a valid number"),
        ({"name": 3}, "'name' is 3; input should be a valid string"),
        ({"name": "x", "inner": 3}, "'inner' is 3; "),
    ],
)
def test_wrong_settings_are_refused_in_one_line(values: dict, words: str) -> None:
    with pytest.raises(UsageError) as error:
        Outer.parse(values, where="run.toml")
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 2


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Outer(name="x").name = "y"


def test_every_field_says_what_it_means() -> None:
    assert Outer.model_fields["name"].description == "Name."


def test_settings_are_written_and_read_back(tmp_path: Path) -> None:
    settings = Outer(name='a "quoted" name\nin two lines é', inner=Inner(rank=9))
    path = tmp_path / "run.toml"
    path.write_text(to_toml(settings), encoding="utf-8")
    assert Outer.parse(read_toml(path)) == settings


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"name = ", "is not valid TOML"), (b"name = '\xff'", "is not UTF-8 text; save it as UTF-8")],
)
def test_a_file_that_is_no_toml_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=words) as error:
        read_toml(path)
    assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match=r"cannot be read \(No such file"):
        read_toml(tmp_path / "missing.toml")
    with pytest.raises(UsageError, match=r"cannot be read \(Is a directory"):
        read_toml(tmp_path)


def test_what_a_check_of_our_own_says_is_told_alone() -> None:
    with pytest.raises(UsageError) as caught:
        RunConfig.read({"character": "mira", "memory": "lots"})
    assert "value error" not in str(caught.value).lower()
    assert "no amount of memory" in str(caught.value)


def test_a_batch_beyond_reason_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'schedule.batch_size' is 100000; .* 4096"):
        RunConfig.read({"character": "mira", "schedule": {"batch_size": 100000}})
