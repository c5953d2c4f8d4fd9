"""Configuration files of other trainers, parsed or refused with the line and the reason.

A file that cannot be parsed is never taken for one that is not there: its captions, repeats and
name would be lost without a word.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Final

import yaml

from personae.errors import CharacterError

MAX_BYTES: Final = 1_000_000
"""No hand-written configuration is larger; a larger YAML file is not parsed at all."""

_MEND: Final = "mend it, or move it away"


def parse_toml(path: Path) -> dict[str, object]:
    """Return the content of a TOML file, with or without a byte order mark.

    Raises:
        CharacterError: unreadable, not UTF-8, or not TOML.
    """
    text = _text(path)
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        advice = _MEND
        if "\\" in text:
            advice = "write paths with / or in 'single quotes'; " + advice
        raise CharacterError(f"{path}: is not valid TOML ({_line(error)}); {advice}") from None


def parse_json(path: Path) -> object:
    """Return the content of a JSON file, with or without a byte order mark.

    Raises:
        CharacterError: unreadable, not UTF-8, or not JSON.
    """
    try:
        return json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise CharacterError(f"{path}: is not valid JSON ({_line(error)}); {_MEND}") from None


def parse_yaml(path: Path) -> object:
    """Return the content of a YAML file; None for one that is too large or needs code to be read.

    Raises:
        CharacterError: unreadable, not UTF-8, or not YAML.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            return None
        return yaml.safe_load(_text(path))
    except yaml.constructor.ConstructorError:
        return None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f", line {mark.line + 1}" if mark else ""
        raise CharacterError(
            f"{path}: is not valid YAML ({error.problem or error.context}{place}); {_MEND}"
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise CharacterError(f"{path}: is not valid YAML ({_line(error)}); {_MEND}") from None


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CharacterError(
            f"{path}: is not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from None
    except OSError as error:
        raise CharacterError(f"{path}: cannot be read ({error.strerror})") from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
