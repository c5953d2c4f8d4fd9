"""Settings: frozen, documented, and strict about unknown names.

A `Config` is read from TOML or from command-line options; both show the same fields, because
both are drawn from the class. It knows nothing about what the settings mean.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Self

import tomli_w
from pydantic import BaseModel, ConfigDict, ValidationError

from personae.core.registry import closest, nearest
from personae.errors import UsageError

_LONGEST_VALUE: Final = 80
"""Letters of a wrong value that an error repeats."""


class Config(BaseModel):
    """Base of every group of settings; each field carries a description."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    @classmethod
    def parse(cls, values: dict[str, Any], *, where: str = "configuration") -> Self:
        """Check `values` and return the settings.

        Raises:
            UsageError: names the first wrong key or value, what was found and what is expected.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise UsageError(f"{where}: {first_problem(cls, error)}") from None

    @classmethod
    def tables(cls) -> dict[str, type[Config]]:
        """Return the groups of settings inside this one by the name of their table."""
        return {
            name: field.annotation
            for name, field in cls.model_fields.items()
            if isinstance(field.annotation, type) and issubclass(field.annotation, Config)
        }


def first_problem(cls: type[Config], error: ValidationError) -> str:
    """Return in one line the first wrong key or value, what was found and what is expected."""
    problem = error.errors(include_url=False)[0]
    path = [str(part) for part in problem["loc"]]
    key = ".".join(path)
    if problem["type"] == "extra_forbidden":
        return f"unknown key '{key}'.{_offer(path, cls)}"
    if problem["type"] == "missing":
        return f"'{key}' is missing; add it"
    offer = ""
    if problem["type"] == "literal_error":
        offer = nearest(str(problem["input"]), re.findall("'([^']+)'", problem["ctx"]["expected"]))
    message = problem["msg"].removeprefix("Value error, ").lower()
    if not path:  # about several keys together; the input is all of them
        return message
    return f"'{key}' is {_shown(problem['input'])}; {message}{offer and '.' + offer}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."


def _offer(path: Sequence[str], cls: type[Config]) -> str:
    """Return the key that one at `path` was probably meant to be; with its table, if in another."""
    *above, key = path
    for name in above:
        cls = cls.tables().get(name, cls)
    places = {name: name for name in [*cls.model_fields, *cls.tables()]}
    for table, schema in cls.tables().items():
        for name in schema.model_fields:
            places.setdefault(name, f"{table}.{name}")
    meant = closest(key, places)
    return "" if meant is None else f" Did you mean '{places[meant]}'?"


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file, with or without a byte order mark, into plain values.

    Raises:
        UsageError: the file is missing, not UTF-8, or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is not UTF-8 text; save it as UTF-8") from None
    except (ValueError, RecursionError) as error:  # its own, or numbers and tables beyond bounds
        raise UsageError(f"{path}: is not valid TOML ({error})") from None


def to_toml(config: BaseModel) -> str:
    """Write settings as TOML; fields without a value are left out."""
    return tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))
