"""Options of a command, made from the fields of a model."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from nasseg.planning.options import Shown


def options_from(model: type[BaseModel]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each field of `model`, in place of its `**` parameter."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [
            parameter
            for parameter in inspect.signature(command, eval_str=True).parameters.values()
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        required = [parameter for parameter in own if parameter.default is inspect.Parameter.empty]
        optional = [parameter for parameter in own if parameter not in required]
        parameters = [*required, *(_parameter(name, field) for name, field in model.model_fields.items()), *optional]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return command

    return decorate


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    """Convert a field to a parameter that Typer makes an option of; anything but plain values is given as text."""
    kind: Any = field.annotation
    default = field.default
    if not _is_plain(kind):
        kind, default = str | None, None if default is None else str(default)
    shown = next((part for part in field.metadata if isinstance(part, Shown)), Shown())
    option = typer.Option(
        help=field.description,
        min=_bound(field, "ge"),
        max=_bound(field, "le"),
        metavar=shown.metavar,
        rich_help_panel=shown.panel,
    )
    annotation = Annotated[kind, option]
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=annotation)


def _is_plain(kind: object) -> bool:
    if get_origin(kind) in {Union, types.UnionType}:
        return all(part is types.NoneType or _is_plain(part) for part in get_args(kind))
    return get_origin(kind) is Literal or kind in {str, int, float, bool}


def _bound(field: FieldInfo, name: str) -> float | None:
    return next((getattr(part, name) for part in field.metadata if hasattr(part, name)), None)
