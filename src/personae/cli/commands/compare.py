"""`personae compare`: which technique serves a character best, measured on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from personae.cli.cast_options import DeviceOption, PrecisionOption, quiet_libraries
from personae.cli.commands.study import (
    JobsOption,
    LimitOption,
    RayOption,
    RetryOption,
    follow,
    runner,
)
from personae.cli.terminal import AsJson, Terminal


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(compare)


def compare(
    characters: Annotated[list[Path], typer.Argument(help="Folders of pictures.")],
    base: Annotated[str, typer.Option(help="Base model.")] = "toon",
    techniques: Annotated[
        str | None,
        typer.Option(help="Comma-separated; join with + to train together. Default: all."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each technique.")] = 1,
    budget: Annotated[
        str,
        typer.Option(
            help="Equal for all: steps (as many presentations as the longest recommendation), "
            "steps=N, presentations=N or seconds=N; or own, as each recommends."
        ),
    ] = "steps",
    keep: Annotated[str, typer.Option(help="Checkpoint kept: best, most_flexible, last.")] = "best",
    pictures: Annotated[int, typer.Option(min=1, help="Pictures drawn of each prompt.")] = 2,
    suite: Annotated[
        str | None, typer.Option(help="Prompts: toon, general, or a TOML file of your own.")
    ] = None,
    identity: Annotated[
        str | None, typer.Option(help="Encoder that tells characters apart, such as dinov2.")
    ] = None,
    image_text: Annotated[
        str | None, typer.Option(help="Encoder that reads pictures and texts, such as clip.")
    ] = None,
    limit: LimitOption = None,
    jobs: JobsOption = None,
    ray: RayOption = None,
    retry_failed: RetryOption = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the study. Default: studies/<characters>.")
    ] = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    as_json: AsJson = False,
) -> None:
    """Train every technique alike, measure them all, and say which to take.

    Same pictures, captions, caches and noise; same prompts and seeds. Runs that are there already
    are not run again. The report is one HTML file that opens anywhere.
    """
    from personae.study.study import Study

    quiet_libraries()
    chosen = {"suite": suite, "identity": identity, "image_text": image_text}
    judging: dict[str, Any] = {"seeds": pictures}
    judging |= {name: value for name, value in chosen.items() if value is not None}
    values = {
        "character": [str(folder) for folder in characters],
        "base": base,
        "technique": [name.strip() for name in techniques.split(",")] if techniques else known(),
        "seed": list(range(seeds)),
        "device": device,
        "precision": precision,
        "keep": keep,
        "stop_early": False,  # all get the same number of presentations
        "budget": budget,
        "judging": judging,
    }
    folder = out or Path("studies") / "-".join(path.resolve().name for path in characters)
    study = Study.plan(values, folder, where="compare")
    follow(Terminal(as_json), study, runner(study, jobs, ray), limit, retry_failed=retry_failed)


def known() -> list[str]:
    """Return the names of all techniques."""
    from personae.core.registry import discover
    from personae.techniques.technique import Technique

    return list(discover(Technique))
