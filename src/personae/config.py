"""Settings: frozen, documented, and strict about unknown names.

A `Config` is read from TOML or from command-line options; both show the same fields, because
both are drawn from the class. It knows nothing about what the settings mean.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Self

import tomli_w
from pydantic import BaseModel, ConfigDict, ValidationError

from personae.errors import UsageError
from personae.registry import nearest


class Config(BaseModel):
    """Base of every group of settings; each field carries a description."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @classmethod
    def parse(cls, values: dict[str, Any], *, where: str = "configuration") -> Self:
        """Check `values` and return the settings.

        Raises:
            UsageError: names the first wrong key or value, what was found and what is expected.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise UsageError(f"{where}: {_first_problem(cls, error)}") from None


def _first_problem(cls: type[BaseModel], error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"unknown key '{key}'.{nearest(key.split('.')[-1], _field_names(cls))}"
    if problem["type"] == "missing":
        return f"'{key}' is missing; add it"
    return f"'{key}' is {problem['input']!r}; {problem['msg'].lower()}"


def _field_names(cls: type[BaseModel]) -> list[str]:
    names = list(cls.model_fields)
    for field in cls.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            names += _field_names(field.annotation)
    return names


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file into plain values.

    Raises:
        UsageError: the file is missing, not UTF-8, or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is not UTF-8 text; save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: is not valid TOML ({error})") from None


def to_toml(config: BaseModel) -> str:
    """Write settings as TOML; fields without a value are left out."""
    return tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))
