"""The shape of the code (CONTRIBUTING): small modules, short functions, few modules a package, public names outside."""

import ast
from collections import Counter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCE = [path for room in ("nasseg", "baselines", "search_spaces") for path in (REPOSITORY / room).rglob("*.py")]
OUTSIDE = [path for room in ("tests", "benchmarks", "examples") for path in (REPOSITORY / room).rglob("*.py")]
MOST_LINES_OF_A_MODULE = 350
MOST_LINES_OF_A_FUNCTION = 80
MOST_MODULES_OF_A_PACKAGE = 14
COMMANDS = "nasseg/cli/"
"""Their functions are lists of options."""


def name(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def test_modules_and_functions_are_short() -> None:
    long = []
    for path in SOURCE:
        source = path.read_text()
        if (lines := len(source.splitlines())) > MOST_LINES_OF_A_MODULE:
            long.append(f"{name(path)} has {lines} lines")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef) and not name(path).startswith(COMMANDS):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MOST_LINES_OF_A_FUNCTION:
                    long.append(f"{node.name} in {name(path)} has {lines} lines")
    assert long == []


def test_packages_have_few_modules() -> None:
    modules = Counter(name(path.parent) for path in SOURCE if path.name != "__init__.py")
    assert {package: count for package, count in modules.items() if count > MOST_MODULES_OF_A_PACKAGE} == {}


def test_the_formatter_is_not_fought() -> None:
    marked = [name(path) for path in SOURCE + OUTSIDE if path != Path(__file__) and "fmt: skip" in path.read_text()]
    assert marked == []


@pytest.mark.parametrize("room", ["tests", "benchmarks", "examples"])
def test_nobody_outside_uses_private_names_of_the_engine(room: str) -> None:
    private = []
    for path in OUTSIDE:
        if not name(path).startswith(f"{room}/"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in {"nasseg", "search_spaces"}:
                private += [f"{name(path)}:{node.lineno} {a.name}" for a in node.names if a.name.startswith("_")]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("nasseg."):
                parts = node.value.split(".")
                private += [
                    f"{name(path)}:{node.lineno} {node.value}"
                    for part in parts
                    if part.startswith("_") and not part.endswith("__")
                ]
    assert private == []
