"""`personae extract`: a LoRA out of a DreamBooth or a linear hypernetwork."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from personae.cli.cast_options import DeviceOption, quiet_libraries
from personae.cli.output_files import OutOption, write_artifact
from personae.cli.terminal import AsJson, Terminal


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(extract)


def extract(
    file: Annotated[Path, typer.Argument(help="A DreamBooth or hypernetwork artifact.")],
    rank: Annotated[int, typer.Option(help="Most ranks of a layer.")] = 32,
    share: Annotated[
        float, typer.Option(help="Share of the energy each layer keeps, in (0, 1].")
    ] = 1.0,
    base: Annotated[
        str | None, typer.Option(help="Base model. Default: the one it was trained on.")
    ] = None,
    out: OutOption = Path("extracted.lora.safetensors"),
    device: DeviceOption = "auto",
    as_json: AsJson = False,
) -> None:
    """Take out of a whole fine-tuned model what a LoRA can hold, and say how much that is."""
    terminal = Terminal(as_json)
    from personae.artifacts.artifact import Artifact
    from personae.artifacts.extract import extract as extracted
    from personae.models.load import load_base
    from personae.models.weights.sources import pick_base

    artifact = Artifact.load(file)
    chosen = pick_base(base, artifact.card.base.source)
    quiet_libraries()
    with terminal.waiting("loading the base"):
        loaded = load_base(chosen, device=device, precision="fp32")
    with terminal.waiting("extracting"):
        result = extracted(artifact, loaded, rank=rank, share=share)
    write_artifact(terminal, "extracted", result, out)
