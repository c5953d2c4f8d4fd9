"""Numbers as a person reads them: times, sizes and counts in words."""

from __future__ import annotations

import re

from personae.errors import UsageError

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12} | {
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}
MOST_BYTES = 1e18  # no machine has as much


def duration(seconds: float) -> str:
    """Return "0.4 s", "58 s", "3 min 05 s" or "2 h 10 min"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min"


def size(byte_count: float) -> str:
    """Return "812 B", "48 kB", "1.6 MB" or "2.3 GB"; a kB is 1000 bytes."""
    amount = float(byte_count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 999.5 or unit == "GB":
            break
        amount /= 1000
    return f"{amount:.0f} {unit}" if amount >= 9.95 or unit == "B" else f"{amount:.1f} {unit}"


def count(number: int, noun: str) -> str:
    """Return "1 picture", "12,000 pictures"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def parse_bytes(text: str) -> float:
    """Return the bytes of "8GiB" (powers of 1024) or "10MB" (powers of 1000).

    Raises:
        UsageError: the text is no positive number with such a unit.
    """
    match = re.fullmatch(r"\s*([0-9.]+)\s*([A-Za-z]*)\s*", text)
    unit = match[2].upper() if match else ""
    amount = float(match[1].strip(".") or 0) if match and match[1].count(".") < 2 else 0.0
    if unit not in UNITS or not 0 < amount < MOST_BYTES:
        raise UsageError(f"'{text}' is no amount of memory; expected one such as 8GiB or 10MB")
    return amount * UNITS[unit]


WORDS = {
    "seconds": "training time",
    "peak_bytes": "peak memory",
    "file_bytes": "file size",
    "switch_seconds": "switching",
}


def show(cost: str, amount: float | None) -> str:
    """Return a cost for people: "58 s", "1.6 MB", "0.80 M"; memory as "612 MB" or "1.12 GB".

    Memory and files are in the same units, powers of 1000, as they stand side by side.
    """
    if amount is None or amount != amount:
        return "unknown"
    match cost:
        case "file_bytes":
            return size(amount)
        case "peak_bytes" | "added_bytes":
            return f"{amount / 1e9:.2f} GB" if amount >= 999.5e6 else f"{amount / 1e6:.0f} MB"
        case "parameters":
            return f"{amount / 1e6:.2f} M" if amount >= 1e5 else f"{amount:,.0f}"
        case _:
            if amount >= 0.95:
                return duration(amount)
            return f"{amount * 1000:.0f} ms" if amount >= 0.01 else f"{amount * 1000:.1f} ms"
