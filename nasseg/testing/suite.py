"""The common base of the suites: the thing under test, and another process to compare with."""

from __future__ import annotations

import importlib
import io
import multiprocessing
import os
import pickle
import sys
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import cache, partial
from types import FunctionType
from typing import Any, ClassVar, ParamSpec, TypeVar

import pytest

P = ParamSpec("P")
R = TypeVar("R")


class Suite:
    """Tests that take an argument called `subject`: the class's attribute of that name, if it has one."""

    subject: ClassVar[str]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Pass the attribute to every test; without one, a mark or a fixture of that name does."""
        if hasattr(type(self), self.subject):
            metafunc.parametrize(self.subject, [getattr(type(self), self.subject)], ids=[self.subject])


def elsewhere(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call in another process, in which strings have other hashes and sets of them another order.

    All must be picklable: functions and classes with a name in their module, no lambdas.
    """
    call = io.BytesIO()
    _Pickler(call).dump(partial(function, *args, **kwargs))
    result: R = _other_process().submit(_call, sys.path, call.getvalue()).result()
    return result


def how_to_register(thing: Any, group: str, name: str = "NAME") -> str:
    """Say how an installed package gives `thing` as the entry point `name` of a group."""
    path = getattr(thing, "__qualname__", str(thing))
    entry = f'[project.entry-points."{group}"] {name} = "{thing.__module__}:{path}"'
    return f"give {path} as an entry point and install your package: {entry}"


class _Pickler(pickle.Pickler):
    """A pickler of local functions, too, if their module has a name for them."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, FunctionType) and "<locals>" in value.__qualname__:
            for name, known in vars(sys.modules[value.__module__]).items():
                if known is value:
                    return _named, (value.__module__, name)
        return NotImplemented


def _named(module: str, name: str) -> object:
    return getattr(importlib.import_module(module), name)


def _call(path: list[str], call: bytes) -> Any:
    sys.path[:] = path
    return pickle.loads(call)()


@cache
def _other_process() -> Executor:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONHASHSEED", "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1")
        executor = ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn"))
        executor.submit(os.getpid).result()  # it has started when the variable is put back
    return executor
