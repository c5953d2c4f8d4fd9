"""What devices and number formats are called; without torch, so that others are refused early."""

from __future__ import annotations

from personae.errors import UsageError

DEVICES = ("auto", "cuda", "mps", "cpu")
UNSAID = "meta"  # has shapes and no values, for tests and counting
PRECISIONS = ("fp32", "bf16", "fp16")
QUANTISED = ("int8", "nf4")


def check_device(name: str) -> None:
    """Refuse what is no device; whether the machine has it is another question.

    Raises:
        UsageError: it is neither auto nor a kind of device, with or without a number (cuda:1).
    """
    kind, *number = name.split(":")
    numbered = len(number) <= 1 and all(part.isdecimal() for part in number)
    if name != "auto" and not (kind in (*DEVICES[1:], UNSAID) and numbered):
        raise UsageError(f"device is '{name}'; it must be one of {', '.join(DEVICES)}")


def check_precision(name: str) -> None:
    """Refuse what is no format of a base.

    Raises:
        UsageError: it is none of auto, PRECISIONS and QUANTISED.
    """
    known = (*PRECISIONS, *QUANTISED)
    if name not in ("auto", *known):
        raise UsageError(f"precision is '{name}'; it must be auto, {', '.join(known)}")
