"""The base of a technique's own settings, without torch: wrong ones are refused before it comes."""

from __future__ import annotations

from typing import ClassVar

from personae.core.config import Config


class TechniqueConfig(Config):
    """Base of a technique's own settings.

    Attributes:
        title: the technique as the help of commands calls it.
    """

    title: ClassVar[str] = ""
