"""Baselines and search spaces by name, from entry points, which a user's own package registers in the same way.

A name takes options after a colon: `unet:in_channels=1,norm=none`. A space may also be `package.module:Class`, with
options after a second colon. Importing a module runs its code, so such a class is imported only if the user names it:
files, which may be someone else's, can only name registered spaces.
"""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError, validate_call

from nasseg.errors import one_line
from nasseg.foreign import parse_json, read_json, refuse_program
from nasseg.run_folder import architecture_file

if TYPE_CHECKING:
    from nasseg.graph import Architecture
    from nasseg.space import Space

BASELINES = "nasseg.baselines"
SPACES = "nasseg.search_spaces"
DEFAULT_CLASSES = 19
"""As in Cityscapes, for which the papers count parameters."""


def names(group: str) -> list[str]:
    """List the names that installed packages register in an entry-point group, sorted."""
    return sorted(point.name for point in entry_points(group=group))


def parse_options(text: str, where: str) -> dict[str, JsonValue]:
    """Parse `a=1,b=true,c=x` into a mapping; raises `ValueError` if a part is not KEY=VALUE or a key is repeated."""
    options: dict[str, JsonValue] = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if not equals or not key or key in options:
            raise ValueError(f"{where}: option {part!r} must be KEY=VALUE, each key once, joined by commas")
        try:
            options[key] = parse_json(value)
        except ValueError:
            options[key] = value
    return options


def baseline(text: str, num_classes: int | None = None, **options: object) -> Architecture:
    """Build the handcrafted network `NAME` or `NAME:OPTIONS` for `num_classes` classes (or its own default).

    Raises `ValueError` for an unknown name or option, listing the known ones.
    """
    name, _, tail = text.partition(":")
    classes = {} if num_classes is None else {"num_classes": num_classes}
    given = {**classes, **parse_options(tail, name), **options}
    network: Architecture = _call(loaded(BASELINES, name), name, given)
    return network


def space(text: str, *, named_by_user: str | None = None, where: str = "") -> Space[Any]:
    """Build the search space `NAME[:OPTIONS]` or, if the user named it, `package.module:Class[:OPTIONS]`.

    `named_by_user` is the space as the user gave it, on the command line or in Python (the same as `text` if that came
    from the user), and `where` the file that `text` came from. Raises `ValueError` as `check_space` does, and for an
    unknown name or option, listing the known ones.
    """
    from nasseg.space import Space

    check_space(text, named_by_user, where)
    name, tail = _split_space(text)
    module, _, attribute = name.partition(":")
    make = _import(module, attribute) if attribute else loaded(SPACES, name)
    if not isinstance(make, type) or not issubclass(make, Space) or inspect.isabstract(make):
        raise ValueError(f"{name} is not a search space; give a class that implements nasseg.space.Space")
    found: Space[Any] = _call(make, text, parse_options(tail, name))
    return found


def check_space(text: str, named_by_user: str | None, where: str = "") -> None:
    """Raise `ValueError` unless the space `text` is registered, or is the one that the user named.

    The user may leave out the options that the file `where` gives. Nothing is imported.
    """
    name, _ = _split_space(text)
    place = f"{where}: " if where else ""
    if named_by_user is None and ":" in name:
        raise ValueError(
            f"{place}space {name} is not registered, and importing it runs its code; if you trust that, add "
            f"--space {name}"
        )
    if named_by_user not in {None, text, name}:
        raise ValueError(
            f"{place}space is {text!r}, but --space names {named_by_user!r}; name the same, without its options"
        )


def is_registered(text: str) -> bool:
    """Check that an installed package registers the space `NAME[:OPTIONS]`."""
    return text.partition(":")[0] in names(SPACES)


def _split_space(text: str) -> tuple[str, str]:
    """Split off the options after `NAME` or `package.module:Class`; a registered name goes before a module's."""
    name, _, tail = text.partition(":")
    attribute, _, options = tail.partition(":")
    if is_registered(text) or not attribute.isidentifier() or not all(map(str.isidentifier, name.split("."))):
        return name, tail
    return f"{name}:{attribute}", options


def architecture(text: str, num_classes: int | None = None, *, named_by_user: str | None = None) -> Architecture:
    """Build ARCH of the command line: a file, a run folder, a baseline, or a space's name for its best published point.

    A file keeps its own number of classes; `num_classes` is for names (`None`: the network's own default). After a
    file with a point of a search space, a colon may give other options of the space, such as a wider network's:
    `best.json:filters=32`. `named_by_user` is the file's space as the user names it, if it is not registered. Raises
    `ValueError`.
    """
    from nasseg.graph import load

    if is_file(text):
        given, tail = _split_options(text)
        refuse_program(Path(given))
        path = str(architecture_file(Path(given)))
        found = _point_in_file(Path(path), num_classes) or load(path)
        return _with_options(found, path, tail, named_by_user) if tail else found
    name = text.partition(":")[0]
    if name in names(SPACES):
        points = space(text)
        *_, best = points.references().values()
        return points.architecture(best, DEFAULT_CLASSES if num_classes is None else num_classes)
    if name not in names(BASELINES):
        known = ", ".join([*names(BASELINES), *names(SPACES)])
        raise ValueError(f"unknown architecture {name!r}; give a file such as best.json, or one of: {known}")
    return baseline(text, num_classes)


def _point_in_file(path: Path, num_classes: int | None) -> Architecture | None:
    """Read a file with a JSON list, such as DPC's published cells, as a point of a space; `None` for other files."""
    if path.is_dir():
        return None
    data = read_json(path, "give a best.json, or a baseline's name")
    if not isinstance(data, list):
        return None
    problems = []
    for name in names(SPACES):
        points = space(name)
        try:
            choice = points.parse(data)
        except ValueError as error:
            problems.append(f"{name}: {error}")
            continue
        network = points.architecture(choice, DEFAULT_CLASSES if num_classes is None else num_classes)
        return network.replace(space=name, choice=choice.model_dump(mode="json"))
    raise ValueError(f"{path} is a list, but no space reads it as one of its points ({'; '.join(problems)})")


def _with_options(found: Architecture, path: str, tail: str, named_by_user: str | None) -> Architecture:
    """Build the same point with other options of its space, without the scores, which no longer apply."""
    if found.space is None or found.choice is None:
        raise ValueError(f"{path} is not a point of a search space, so it takes no options; leave out {tail!r}")
    check_space(found.space, named_by_user, path)
    name, own = _split_space(found.space)
    options = {**parse_options(own, name), **parse_options(tail, path)}
    text = f"{name}:" + ",".join(f"{key}={json.dumps(value).strip(chr(34))}" for key, value in options.items())
    points = space(text, named_by_user=name)
    network = points.architecture(points.parse(found.choice), found.classes)
    origin = None if found.provenance is None else {**found.provenance, "miou": {}, "latency": None}
    return network.replace(space=text, choice=found.choice, provenance=origin)


def _split_options(arch: str) -> tuple[str, str]:
    """Split a file's path from the options after it."""
    path, suffix, tail = arch.rpartition(".json:")
    return (f"{path}.json", tail) if suffix else (arch, "")


def is_file(arch: str) -> bool:
    """Check whether ARCH of the command line is a file; known names go before files or folders of the same name."""
    path = Path(_split_options(arch)[0])
    return path.suffix == ".json" or (path.exists() and arch not in {*names(BASELINES), *names(SPACES)})


def loaded(group: str, name: str) -> Callable[..., Any]:
    """Load the entry point `name` of a group; raises `ValueError` for an unknown one, listing the known ones."""
    found: dict[str, EntryPoint] = {point.name: point for point in entry_points(group=group)}
    if name not in found:
        what = group.rpartition(".")[2].removesuffix("s").replace("_", " ")
        raise ValueError(f"unknown {what} {name!r}; known: {', '.join(sorted(found))}")
    thing: Callable[..., Any] = found[name].load()
    return thing


def _import(module: str, attribute: str) -> Callable[..., Any]:
    try:
        thing: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{module}:{attribute} cannot be imported ({error}); give package.module:Class") from None
    return thing


def _call(make: Callable[..., Any], where: str, options: Mapping[str, object]) -> Any:
    """Call `make` with options checked and converted by its own annotations."""
    try:
        if isinstance(make, type) and issubclass(make, BaseModel):
            return make.model_validate(options)
        return validate_call(config=ConfigDict(arbitrary_types_allowed=True))(make)(**options)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        if problem["type"] in {"unexpected_keyword_argument", "extra_forbidden"}:
            known = ", ".join(name for name in inspect.signature(make).parameters if name != "num_classes")
            raise ValueError(f"{where}: unknown option {problem['loc'][-1]!r}; known: {known}") from None
        raise ValueError(one_line(error, where)) from None
