"""What a study found, with intervals over characters: may one setting be advised for all of them?

    python benchmarks/by_character.py studies/inversion_rates [--csv FILE]

The report's intervals resample prompts, and so speak of the study's own characters. Here a
character is one unit. Printed for each row, best first: the product of likeness and agreement with
its interval (95%, bootstrap over characters), how far it is behind the best row on the characters
that both have, both factors, and how often the right prompt is found. Fewer than six characters
have no intervals and decide nothing. `--csv` writes every character's mean of every measure.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from pathlib import Path

import numpy as np

from personae.evaluation.statistics import Interval, mean_interval, paired_difference
from personae.study.comparison.comparison import Comparison
from personae.study.comparison.rows import Row
from personae.study.study import Study

SCORE = "balance"
FEWEST = 6
"""Characters from which on anything is decided: with five that all agree, a sign test still gives
2 x 0.5^5 = 6%, while a bootstrap of so few would always be sure."""
SHOWN = ("likeness_share", "likeness_share_second", "agreement_share", "right_prompt", "copies")


def means(row: Row, measure: str) -> dict[str, float]:
    """Return {character: mean over its seeds and pictures} of a row's measure."""
    gathered: dict[str, list[float]] = defaultdict(list)
    for key, value in row.values.get(measure, {}).items():
        gathered[key[0]].append(value)
    return {name: float(np.nanmean(values)) for name, values in gathered.items()}


def interval(row: Row, measure: str) -> Interval:
    """Return the mean of a measure with its interval over characters."""
    return mean_interval(np.array(list(means(row, measure).values())))


def behind(row: Row, best: Row) -> str:
    """Return in words how far `row` is behind `best` on the characters that both have."""
    ours, theirs = means(row, SCORE), means(best, SCORE)
    both = [name for name in theirs if name in ours]
    gap = paired_difference(*(np.array([each[name] for name in both]) for each in (theirs, ours)))
    undecided = gap.tie or gap.interval.units < FEWEST
    return told(gap.interval, "+.3f") + (", undecided" if undecided else "")


def told(found: Interval, form: str) -> str:
    """Return a mean in words, with its interval where there are enough characters for one."""
    ends = f" ({found.low:{form}} to {found.high:{form}})" if found.units >= FEWEST else ""
    return f"{found.mean:{form}}{ends}"


def line(row: Row, best: Row) -> str:
    """Return a row of the printed table."""
    score = interval(row, SCORE)
    cells = [
        row.title,
        str(score.units),
        told(score, ".3f"),
        "best" if row is best else behind(row, best),
        *(f"{interval(row, name).mean:.0%}" for name in SHOWN),
    ]
    return f"| {' | '.join(cells)} |"


def write_csv(comparison: Comparison, file: Path) -> None:
    """Write (row, measure, character, mean) of all that was measured."""
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        writer.writerow(("row", "measure", "character", "mean"))
        for row in comparison.rows:
            for measure in comparison.measures:
                for name, value in means(row, measure).items():
                    writer.writerow((row.name, measure, name, f"{value:.6g}"))


def main() -> None:
    """Print the table of a study, and write its numbers where that is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("study", help="folder of a study, finished or not")
    parser.add_argument("--csv", type=Path, help="file for each character's means")
    args = parser.parse_args()
    comparison = Comparison.of(Study.open(args.study))
    rows = [row for row in comparison.rows if SCORE in row.values]
    rows.sort(key=lambda row: interval(row, SCORE).mean, reverse=True)
    print("| setting | characters | product | behind the best | " + " | ".join(SHOWN) + " |")
    print("|---" * (4 + len(SHOWN)) + "|")
    for row in rows:
        print(line(row, rows[0]))
    if args.csv:
        write_csv(comparison, args.csv)


if __name__ == "__main__":
    main()
