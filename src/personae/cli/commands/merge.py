"""`personae merge`: several LoRAs as one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from personae.cli.output_files import OutOption, write_artifact
from personae.cli.terminal import AsJson, Terminal
from personae.errors import UsageError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(merge)


def merge(
    files: Annotated[list[Path], typer.Argument(help="LoRA artifacts for one base.")],
    weights: Annotated[
        str | None, typer.Option(metavar="N,N,...", help="Strength of each. Default: 1.")
    ] = None,
    method: Annotated[str, typer.Option(help="linear (exact), svd, ties or dare.")] = "linear",
    rank: Annotated[
        int | None, typer.Option(help="Most ranks for svd, ties and dare. Default: the largest.")
    ] = None,
    density: Annotated[float, typer.Option(help="Share of values ties and dare keep.")] = 0.5,
    seed: Annotated[int, typer.Option(help="Of the values dare drops.")] = 0,
    out: OutOption = Path("merged.lora.safetensors"),
    as_json: AsJson = False,
) -> None:
    """Join LoRAs into one that does what they do together."""
    strengths = _numbers(weights, len(files))
    from personae.artifacts.artifact import Artifact
    from personae.artifacts.merge import Method
    from personae.artifacts.merge import merge as merged

    parts = [(Artifact.load(file), s) for file, s in zip(files, strengths, strict=True)]
    result = merged(parts, cast(Method, method), rank=rank, density=density, seed=seed)
    write_artifact(Terminal(as_json), "merged", result, out)


def _numbers(text: str | None, count: int) -> list[float]:
    if text is None:
        return [1.0] * count
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        raise UsageError(f"--weights is '{text}'; expected {count} numbers, one for each file")
    return numbers
