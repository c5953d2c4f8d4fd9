"""Options drawn from settings classes, so that a field is written once and shown everywhere.

A command declared with `cls=with_options(groups)` gains one option per field when it is run or
asked for help, and not before: reading the classes imports torch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from typer.core import TyperCommand

SEPARATOR = "__"
NUMBERS = "N,N,..."


@dataclass(frozen=True, slots=True)
class Group:
    """The fields of one settings class, as a panel of options.

    Attributes:
        panel: title in the help.
        schema: a `Config` class.
        table: where its values go in the settings: () for the top, ("lora",) for a table.
        prefix: put before each option's name.
        skip: fields that are not offered.
    """

    panel: str
    schema: type[Any]
    table: tuple[str, ...] = ()
    prefix: str = ""
    skip: frozenset[str] = frozenset()


def with_options(groups: Callable[[], Sequence[Group]]) -> type[TyperCommand]:
    """Return a command class that has the options of `groups()` besides its own."""
    return type("CommandWithOptions", (SchemaCommand,), {"groups": staticmethod(groups)})


class SchemaCommand(TyperCommand):
    """A command whose further options come from settings classes."""

    groups: Callable[[], Sequence[Group]]

    def get_params(self, ctx: Any) -> list[Any]:
        """Return its own options and those of its settings."""
        if not hasattr(self, "_drawn"):
            self._drawn = draw_options(self.groups())
            self.params = [*self.params, *self._drawn]
        return super().get_params(ctx)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help as two plain columns, which never cut a long option short."""
        self.format_usage(ctx, formatter)
        self.format_help_text(ctx, formatter)
        self.format_options(ctx, formatter)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write a section for each panel of options."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            argument = parameter.param_type_name == "argument"
            usual = "Arguments" if argument else "Options"
            title = getattr(parameter, "rich_help_panel", None) or usual
            panels.setdefault(title, []).append(parameter.get_help_record(ctx))
        for title, rows in panels.items():
            with formatter.section(typer.style(title, bold=True)):
                formatter.write_dl(rows)

    def invoke(self, ctx: Any) -> Any:
        """Hand the drawn options over as settings, and the others as arguments."""
        names = [option.name for option in self._drawn]
        ctx.meta[__name__] = _nested({name: ctx.params.pop(name) for name in names})
        return super().invoke(ctx)


def settings_given(ctx: typer.Context) -> dict[str, Any]:
    """Return the settings given as options, in tables, without those left out."""
    settings: dict[str, Any] = ctx.meta[__name__]
    return settings


def draw_options(groups: Sequence[Group]) -> list[Any]:
    """Return typer options for every field of `groups`; each defaults to None: not given."""
    fields = [parameter for group in groups for parameter in _parameters(group)]

    def holder(**values: Any) -> None:
        """Carry the signature that typer reads."""

    carrier: Any = holder
    carrier.__signature__ = inspect.Signature(fields)
    carrier.__annotations__ = {field.name: field.annotation for field in fields}
    app = typer.Typer(add_completion=False)
    app.command()(carrier)
    names = {field.name for field in fields}
    return [option for option in typer.main.get_command(app).params if option.name in names]


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Return `below` with the values of `above` over it, table by table."""
    both = dict(below)
    for key, value in above.items():
        inner = both.get(key)
        both[key] = (
            merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
        )
    return both


def _parameters(group: Group) -> Iterator[inspect.Parameter]:
    for name, field in group.schema.model_fields.items():
        kind, metavar = _option_type(field.annotation)
        if kind is None or name in group.skip:
            continue
        option = "--" + f"{group.prefix}{name}".replace("_", "-")
        declaration = f"{option}/--no-{option[2:]}" if kind is bool else option
        details = typer.Option(
            declaration,
            help=_help(field, repeatable=kind == list[str]),
            metavar=metavar,
            callback=_split if metavar == NUMBERS else None,
            rich_help_panel=group.panel,
            show_default=False,
        )
        yield inspect.Parameter(
            SEPARATOR.join((*group.table, name)),
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[kind | None, details],
        )


def _option_type(annotation: Any) -> tuple[Any, str | None]:
    """Return the type and metavar of an option, or (None, None) for a table."""
    if get_origin(annotation) in (Union, UnionType):
        parts = [part for part in get_args(annotation) if part is not NoneType]
        annotation = parts[0] if len(parts) == 1 else str
    if get_origin(annotation) is Literal:
        return str, "|".join(map(str, get_args(annotation)))
    if get_origin(annotation) in (list, tuple):
        return (list[str], None) if get_args(annotation)[0] is str else (str, NUMBERS)
    if annotation is Path:
        return str, "PATH"
    return (annotation, None) if annotation in (bool, int, float, str) else (None, None)


def _split(value: str | None) -> Any:
    """Return the parts of "1,0.25,1"; the settings class turns them into numbers."""
    return None if value is None else [part.strip() for part in value.split(",")]


def _help(field: Any, *, repeatable: bool) -> str:
    text = " ".join((field.description or "").split())
    if repeatable:
        text += " Repeat the option for several."
    match field.default:
        case bool():
            text += f" [default: {'on' if field.default else 'off'}]"
        case int() | float():
            text += f" [default: {field.default}]"
        case str() if field.default:
            text += f" [default: {field.default}]"
    return text


def _nested(values: dict[str, Any]) -> dict[str, Any]:
    """Return {"lora__rank": 4, "base": None} as {"lora": {"rank": 4}}."""
    tables: dict[str, Any] = {}
    for name, value in values.items():
        if value is None or value == () or value == []:
            continue
        *path, key = name.split(SEPARATOR)
        table = tables
        for part in path:
            table = table.setdefault(part, {})
        table[key] = list(value) if isinstance(value, tuple) else value
    return tables
