"""Says from the log of a training how far it is: pictures seen, pictures an hour, loss and where it goes."""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path


def log_lines(file: Path) -> list[dict]:
    """The log's lines, each with how many pictures it adds for its process."""
    lines, last = [], {}
    for text in file.read_text().splitlines() if file.exists() else []:
        line = json.loads(text)
        line["added"] = max(0, line["pictures"] - last.get(line["peer"], {"pictures": 0})["pictures"])
        last[line["peer"]] = line
        lines.append(line)
    return lines


def mean_loss(lines: list[dict]) -> float:
    """The mean loss over the pictures of some lines."""
    return sum(line["loss"] * line["added"] for line in lines) / max(1, sum(line["added"] for line in lines))


def rate(lines: list[dict]) -> float:
    """Pictures an hour of all processes: the median of each over its last half hour, which pauses do not move."""
    total = 0.0
    for peer in {line["peer"] for line in lines}:
        mine = [line for line in lines if line["peer"] == peer]
        total += statistics.median(line["pictures_per_hour"] for line in mine if line["time"] > mine[-1]["time"] - 1800)
    return total


def newest(lines: list[dict], pictures: int) -> list[dict]:
    """The last lines that add up to at least so many pictures."""
    found, total = [], 0
    for line in reversed(lines):
        if total >= pictures:
            break
        found, total = [*found, line], total + line["added"]
    return found


def progress(lines: list[dict], window: int = 25_000) -> list[str]:
    """What the lines say in words; the loss over the last `window` pictures and over as many before them."""
    last = {line["peer"]: line for line in lines}
    now = newest(lines, window)
    before = newest(lines[: len(lines) - len(now)], window)
    count = {id(part): f"{sum(line['added'] for line in part):,}" for part in (now, before)}
    trend = f", {mean_loss(before):.4f} over the {count[id(before)]} before" if before else ""
    total, age = sum(line["pictures"] for line in last.values()), (time.time() - lines[-1]["time"]) / 60
    return [
        f"pictures  {total:,} by {len(last)} processes, {rate(lines):,.0f} an hour, noted {age:.0f} minutes ago",
        f"loss      {mean_loss(now):.4f} over the last {count[id(now)]} pictures{trend}",
    ]
