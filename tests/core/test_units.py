"""Times, sizes and counts in words."""

from __future__ import annotations

import pytest

from personae.core.units import count, duration, show, size


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.6, "1 h 00 min"),
        (7790, "2 h 10 min"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("byte_count", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (48_200, "48 kB"),
        (99_600, "100 kB"),
        (999_600, "1.0 MB"),
        (1_640_000, "1.6 MB"),
        (2.31e9, "2.3 GB"),
        (4.5e12, "4500 GB"),
    ],
)
def test_sizes(byte_count: float, words: str) -> None:
    assert size(byte_count) == words


@pytest.mark.parametrize(
    ("cost", "amount", "words"),
    [
        ("peak_bytes", 612_000_000, "612 MB"),
        ("peak_bytes", 999_600_000, "1.00 GB"),
        ("added_bytes", 1_120_000_000, "1.12 GB"),
        ("file_bytes", 1_640_000, "1.6 MB"),
        ("parameters", 800_000, "0.80 M"),
        ("parameters", 1000, "1,000"),
        ("seconds", 58.2, "58 s"),
        ("switch_seconds", 0.0204, "20 ms"),
        ("seconds", None, "unknown"),
        ("seconds", float("nan"), "unknown"),
    ],
)
def test_costs(cost: str, amount: float | None, words: str) -> None:
    assert show(cost, amount) == words


def test_counts_agree_in_number() -> None:
    assert [count(number, "picture") for number in (0, 1, 12_000)] == [
        "0 pictures",
        "1 picture",
        "12,000 pictures",
    ]
