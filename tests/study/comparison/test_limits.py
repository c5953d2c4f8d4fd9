"""Limits and budgets: read exactly, refused in words."""

from __future__ import annotations

import pytest

from personae.core.units import show
from personae.errors import UsageError
from personae.study.budget import Budget
from personae.study.comparison.limits import Limits, parse_bytes
from personae.training.schedule import Schedule


@pytest.mark.parametrize(
    ("text", "amount"),
    [("8GiB", 8 * 2**30), ("10MB", 10**7), ("1.5 kB", 1500), ("512", 512), ("2gib", 2**31)],
)
def test_bytes_are_read_in_powers_of_1000_and_1024(text, amount):
    assert parse_bytes(text) == amount


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "8 parsecs", "1.2.3MB", "0", "."])
def test_what_is_no_amount_is_refused(text):
    with pytest.raises(UsageError, match="expected one such as 8GiB"):
        parse_bytes(text)


def test_limits_bound_the_costs_they_name():
    limits = Limits.parse("memory=8GiB, size=10MB,minutes=20")
    assert limits.bounds == {"peak_bytes": 8 * 2**30, "file_bytes": 1e7, "seconds": 1200}
    assert limits.broken_by({"peak_bytes": 2**30, "file_bytes": 1e7, "seconds": 1200}) == []
    broken = limits.broken_by({"file_bytes": 47e6, "seconds": 1260})
    assert len(broken) == 2
    assert "file size is 47 MB, above 10 MB" in broken
    assert Limits.parse(None).bounds == {}


@pytest.mark.parametrize("text", ["memry=8GiB", "memory", "minutes=-2", "minutes=soon"])
def test_wrong_limits_are_refused(text):
    with pytest.raises(UsageError):
        Limits.parse(text)


def test_costs_are_shown_with_their_units():
    assert show("peak_bytes", 3 * 2**29) == "1.61 GB"
    assert show("file_bytes", 1_600_000) == "1.6 MB"
    assert show("seconds", 58.2) == "58 s"
    assert show("switch_seconds", 0.0214) == "21 ms"
    assert show("parameters", 1_250_000) == "1.25 M"
    assert show("parameters", 3072) == "3,072"
    assert show("seconds", None) == "unknown"


@pytest.mark.parametrize(
    "text", ["", "seconds", "own=3", "steps=", "steps=-1", "steps=inf", "hours=1"]
)
def test_wrong_budgets_are_refused(text):
    with pytest.raises(UsageError, match="budget"):
        Budget.parse(text)


def test_budgets_become_steps(sd1):
    schedule = Schedule(batch_size=4, gradient_accumulation=2)

    def steps(text: str, techniques: list[str] = ["lora"]) -> int | None:
        return Budget.parse(text).steps(schedule, sd1, 10, techniques)

    assert steps("steps=30") == 30
    assert steps("presentations=100") == 13  # 8 pictures in a step
    assert steps("seconds=5") is None
    assert steps("own") is None
    alone = {name: steps("steps", [name]) for name in ("lora", "dreambooth")}
    assert steps("steps", ["lora", "dreambooth"]) == max(alone.values())


def test_a_base_s_own_advice_decides_the_equal_number_of_steps(sd1):
    sd1.recommendations = {"lora": {"min_steps": 80, "max_steps": 80}}
    try:
        assert Budget.parse("steps").steps(Schedule(batch_size=4), sd1, 10, ["lora"]) == 20
    finally:
        sd1.recommendations = {}
