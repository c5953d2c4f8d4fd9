"""Options that name a cast and a base, and what they load, without the libraries' chatter."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from personae.errors import UsageError

if TYPE_CHECKING:
    from personae.cli.terminal import Terminal
    from personae.generation.cast import Cast
    from personae.models.family import Family

CastOption = Annotated[
    list[str] | None,
    typer.Option(
        "--cast", metavar="NAME=FILE", help="Bind a name to an artifact; repeat for several."
    ),
]
StrengthOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="Strength of a member, 0 to 1 or more, or over the course of sampling: 0:1,0.5:0.2.",
    ),
]
BaseOption = Annotated[
    str | None,
    typer.Option(
        help="Base model. Default: the one the first member of the cast was trained on, "
        "if it is on this machine."
    ),
]
DeviceOption = Annotated[str, typer.Option(help="auto, cuda, mps or cpu.")]
PrecisionOption = Annotated[
    str,
    typer.Option(
        help="Format of the base's weights: auto, bf16, fp16 or fp32; int8 or nf4 for its linear "
        "layers alone (needs torchao)."
    ),
]


def quiet_libraries() -> None:
    """Switch off the bars that libraries draw while loading; those of downloads stay.

    And what torchao, where it is installed, makes others say of compiled parts it does without.
    """
    for name in ("torchao", "torch.utils._pytree", "diffusers.quantizers.torchao"):
        logging.getLogger(name).setLevel(logging.ERROR)
    import diffusers.utils.logging
    import huggingface_hub.utils
    import transformers.utils.logging

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    bars: Any = huggingface_hub.utils  # it offers them without saying so to a checker
    bars.enable_progress_bars()


def pairs(given: Sequence[str] | None, option: str) -> dict[str, str]:
    """Return {"mira": "a.safetensors"} of ["mira=a.safetensors"].

    Raises:
        UsageError: a value has no `=`, or names someone twice.
    """
    found: dict[str, str] = {}
    for text in given or []:
        name, equals, value = text.partition("=")
        if not (name.isidentifier() and equals and value):
            example = "mira=" + (value or text.replace("=", "") or "...")
            raise UsageError(f"{option} is '{text}'; expected name=value, such as {example}")
        if name in found:
            raise UsageError(f"{option} names '{name}' twice; give each name once")
        found[name] = value
    return found


def load_cast(members: Sequence[str] | None, strengths: Sequence[str] | None) -> Cast:
    """Return the cast of `--cast` and `--strength`.

    Raises:
        PersonaeError: an option is malformed, or a file cannot be used.
    """
    from personae.generation.cast import Cast

    return Cast.load(pairs(members, "--cast"), pairs(strengths, "--strength"))


def open_base(terminal: Terminal, source: str | None, cast: Cast, **options: Any) -> Family:
    """Load the base named, else that of the cast, else the embedded one.

    Raises:
        BaseError: it cannot be loaded.
        UsageError: none is named, and that of the cast is not on this machine.
    """
    from personae.models.load import load_base
    from personae.models.weights.sources import pick_base

    chosen = pick_base(source, cast.base_source)
    quiet_libraries()
    with terminal.waiting("loading the base"):
        return load_base(chosen, **options)
