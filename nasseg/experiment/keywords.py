"""Functions of options, called with keywords that editors complete and type checkers know."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from pydantic import ValidationError

from nasseg.errors import one_line
from nasseg.planning.options import SearchOptions

Keywords = ParamSpec("Keywords")
Result = TypeVar("Result")


def keywords_from(
    model: Callable[Keywords, SearchOptions],
) -> Callable[[Callable[[Path, SearchOptions], Result]], Callable[Concatenate[str | Path, Keywords], Result]]:
    """Let a function of a folder and options be called with the folder and the model's fields as keywords.

    Type checkers take the keywords from the model's constructor; `help()` lists and explains them. A value that the
    model refuses raises a one-line `ValueError`.
    """

    def decorate(
        function: Callable[[Path, SearchOptions], Result],
    ) -> Callable[Concatenate[str | Path, Keywords], Result]:
        @wraps(function)
        def with_keywords(out: str | Path, /, *args: Keywords.args, **options: Keywords.kwargs) -> Result:
            try:
                asked = model(*args, **options)
            except ValidationError as error:
                raise ValueError(one_line(error)) from None
            return function(Path(out), asked)

        with_keywords.__signature__ = _signature(function)  # type: ignore[attr-defined]
        with_keywords.__doc__ = f"{inspect.getdoc(function)}\n\nOptions:\n{_explained()}\n"
        return with_keywords

    return decorate


def _signature(function: Callable[..., object]) -> inspect.Signature:
    out = inspect.Parameter("out", inspect.Parameter.POSITIONAL_ONLY, annotation=str | Path)
    keywords = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.annotation)
        for name, field in SearchOptions.model_fields.items()
    ]
    return inspect.Signature([out, *keywords], return_annotation=inspect.signature(function).return_annotation)


def _explained() -> str:
    return "\n".join(f"    {name}: {field.description}" for name, field in SearchOptions.model_fields.items())
