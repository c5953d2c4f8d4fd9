"""Techniques in a mode of their own for a while: settled, or without effect."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from personae.techniques.technique import Technique


@contextmanager
def settled(techniques: Sequence[Technique]) -> Iterator[None]:
    """Switch dropout off for the length of a `with` block, so that a look repeats exactly."""
    modes = [technique.training for technique in techniques]
    try:
        for technique in techniques:
            technique.eval()
        yield
    finally:
        for technique, mode in zip(techniques, modes, strict=True):
            technique.train(mode)


@contextmanager
def untouched(techniques: Sequence[Technique]) -> Iterator[None]:
    """Let the base act alone: strength 0 for the length of a `with` block."""
    strengths = [technique.strength for technique in techniques]
    try:
        for technique in techniques:
            technique.strength = 0.0
        yield
    finally:
        for technique, strength in zip(techniques, strengths, strict=True):
            technique.strength = strength
