"""Imports point one way (docs/design.md), and the command line starts without the heavy packages."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

# Each part of nasseg imports only itself and those before it. `nasseg` itself, the public face, imports any of them.
ORDER = (
    "nasseg.errors",
    "nasseg.foreign",
    "nasseg.database",
    "nasseg.allocator",
    "nasseg.threads",
    "nasseg.rank_correlation",
    "nasseg.pareto",
    "nasseg.ops",
    "nasseg.graph",
    "nasseg.run_folder",
    "nasseg.space",
    "nasseg.plugins",
    "nasseg.network",
    "nasseg.cost",
    "nasseg.data",
    "nasseg.train",
    "nasseg.export",
    "nasseg.planning",
    "nasseg.jobs",
    "nasseg.experiment",
    "nasseg.report",
    "nasseg.testing",
    "nasseg.cli",
    "nasseg.__main__",
)
PLUGINS = {
    "baselines": ("baselines", "nasseg.errors", "nasseg.ops", "nasseg.graph", "nasseg.space"),
    "search_spaces": (
        "search_spaces",
        "baselines",
        "nasseg.errors",
        "nasseg.ops",
        "nasseg.graph",
        "nasseg.network",
        "nasseg.space",
    ),
}
# `architecture.network()` and `.describe()` import what they need when called.
EXCEPTIONS = {"nasseg.graph.architecture": ("nasseg.network", "nasseg.cost")}
FIRST_PARTY = ("nasseg", *PLUGINS)


def within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def source_modules() -> dict[str, Path]:
    """Dotted name to file, of every module that is ours."""
    modules = {}
    for package in FIRST_PARTY:
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            parts = path.relative_to(REPOSITORY).with_suffix("").parts
            modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


MODULES = source_modules()


def imported(source: str, module: str, is_package: bool, known: set[str]) -> Iterator[tuple[int, str]]:
    """Line and dotted name of each import in `source`, those inside functions and `TYPE_CHECKING` included.

    `from a import b` names `a.b` where that is one of the `known` modules, else `a`.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = module if is_package else module.rpartition(".")[0]
            base = resolve_name("." * node.level + (node.module or ""), package)
            for alias in node.names:
                name = f"{base}.{alias.name}"
                yield node.lineno, name if name in known else base


def allowed(module: str) -> tuple[str, ...]:
    """The packages of ours that `module` may import."""
    plugin = module.split(".")[0]
    if plugin in PLUGINS:
        return PLUGINS[plugin]
    for place, package in enumerate(ORDER):
        if within(module, (package,)):
            return ORDER[: place + 1] + EXCEPTIONS.get(module, ())
    return ("nasseg",)


def test_imports_are_found_wherever_and_however_they_are_written() -> None:
    source = """
import torch, nasseg.ops.conv
from nasseg import graph, __version__
if TYPE_CHECKING:
    from . import space
def lazy():
    from ..graph.files import load
    from .space import Space
"""
    known = {"nasseg", "nasseg.graph", "nasseg.planning", "nasseg.planning.space"}
    expected = {"torch", "nasseg.ops.conv", "nasseg.graph", "nasseg", "nasseg.planning.space", "nasseg.graph.files"}
    assert {name for _, name in imported(source, "nasseg.planning.plan", False, known)} == expected
    assert {name for _, name in imported(source, "nasseg.planning", True, known)} == expected


def test_every_part_of_nasseg_has_its_place() -> None:
    homeless = [module for module in MODULES if module != "nasseg" and allowed(module) == ("nasseg",)]
    assert homeless == [], "give it a place in ORDER"


@pytest.mark.parametrize("package", [*ORDER, *PLUGINS, "nasseg"])
def test_imports_point_one_way(package: str) -> None:
    wrong = []
    for module, path in MODULES.items():
        if not within(module, (package,)) or (package == "nasseg" and module != package):
            continue
        for line, name in imported(path.read_text(), module, path.name == "__init__.py", set(MODULES)):
            if within(name, FIRST_PARTY) and not within(name, allowed(module)):
                wrong.append(f"{path.relative_to(REPOSITORY)}:{line} imports {name}")
    assert wrong == [], f"{package} may import only {', '.join(allowed(package))}"


@pytest.mark.parametrize("arguments", [["--help"], ["search", "--help"]])
def test_the_command_line_starts_without_heavy_packages(arguments: list[str]) -> None:
    script = f"""
import sys
from nasseg.cli import main
sys.argv = ["nasseg", *{arguments}]
try:
    main()
finally:
    print(sorted({{"torch", "ray", "optuna", "matplotlib", "plotly", "onnx"}} & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines() == ["[]"]
    assert done.returncode == 0
    assert "search" in done.stdout
