"""Finding baselines and search spaces by name: entry points, exactly as a user's own package has them.

A name takes options after a colon: `unet:in_channels=1,norm=none`. A space may also be `package.module:Class`, with
options after a second colon. Importing a module runs its code, so such a class is imported only if the user names it;
a file, which may be someone else's, names registered spaces.
"""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError, validate_call

from nasseg.errors import one_line

if TYPE_CHECKING:
    from nasseg.graph import Architecture
    from nasseg.space import Space

BASELINES = "nasseg.baselines"
SPACES = "nasseg.search_spaces"
DEFAULT_CLASSES = 19
"""Cityscapes' number, as the papers count parameters for it."""


def names(group: str) -> list[str]:
    """The names that installed packages give in an entry-point group, sorted."""
    return sorted(point.name for point in entry_points(group=group))


def parse_options(text: str, where: str) -> dict[str, Any]:
    """`a=1,b=true,c=x` as a mapping; raises `ValueError` where a part is not KEY=VALUE or a key comes twice."""
    options: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if not equals or not key or key in options:
            raise ValueError(f"{where}: option {part!r} must be KEY=VALUE, each key once, joined by commas")
        try:
            options[key] = json.loads(value)
        except json.JSONDecodeError:
            options[key] = value
    return options


def baseline(text: str, num_classes: int | None = None, **options: Any) -> Architecture:
    """The handcrafted network `NAME` or `NAME:OPTIONS`, its logits for `num_classes` classes (or its own default).

    Raises `ValueError` for an unknown name or option, with the known ones.
    """
    name, _, tail = text.partition(":")
    make = loaded(BASELINES, name)
    classes = {} if num_classes is None else {"num_classes": num_classes}
    network: Architecture = _call(make, name, {**classes, **parse_options(tail, name), **options})
    return network


def space(text: str, *, named_by_user: str | None = None, where: str = "") -> Space[Any]:
    """Build the search space `NAME[:OPTIONS]` or, where the user named it, `package.module:Class[:OPTIONS]`.

    `named_by_user` is the space as the user gave it, on the command line or in Python; a text that came from the user
    is its own. `where` is the file that the text came from. Raises `ValueError` as `check_space` does, and for an
    unknown name or option, with the known ones.
    """
    from nasseg.space import Space

    check_space(text, named_by_user, where)
    name, tail = _split_space(text)
    module, _, attribute = name.partition(":")
    make = _import(module, attribute) if attribute else loaded(SPACES, name)
    if not isinstance(make, type) or not issubclass(make, Space) or inspect.isabstract(make):
        raise ValueError(f"{name} is no search space; give a class that implements nasseg.space.Space")
    found: Space[Any] = _call(make, text, parse_options(tail, name))
    return found


def check_space(text: str, named_by_user: str | None, where: str = "") -> None:
    """Raise `ValueError` unless the space `text` is registered, or is the one that the user named.

    The user names it as the file `where` has it, or without its options. Nothing is imported.
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
    """Whether the space `NAME[:OPTIONS]` is one that an installed package registers."""
    return text.partition(":")[0] in names(SPACES)


def _split_space(text: str) -> tuple[str, str]:
    """`NAME` or `package.module:Class`, and the options after it; a registered name goes before a module's."""
    name, _, tail = text.partition(":")
    attribute, _, options = tail.partition(":")
    if is_registered(text) or not attribute.isidentifier() or not all(map(str.isidentifier, name.split("."))):
        return name, tail
    return f"{name}:{attribute}", options


def architecture(text: str, num_classes: int | None = None, *, named_by_user: str | None = None) -> Architecture:
    """ARCH of the command line: an architecture file, a baseline, or a space's name for its best published point.

    A file keeps its own number of classes; `num_classes` is for names (not given: the network's own default). One that
    holds a point of a search space may have other options of the space after a colon, such as a wider network's:
    `best.json:filters=32`. `named_by_user` is the file's space as the user names it, if it is not registered. Raises
    `ValueError`.
    """
    from nasseg.graph import load

    if is_file(text):
        path, tail = _split_options(text)
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
    """The point of a space that a file with a JSON list describes, as DPC's published cells are; `None` for others."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
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
    """The same point of its space with other options of the space: without the scores, which hold no more."""
    if found.space is None or found.choice is None:
        raise ValueError(f"{path} is no point of a search space, so that it has no options; leave out {tail!r}")
    check_space(found.space, named_by_user, path)
    name, own = _split_space(found.space)
    options = {**parse_options(own, name), **parse_options(tail, path)}
    text = f"{name}:" + ",".join(f"{key}={json.dumps(value).strip(chr(34))}" for key, value in options.items())
    points = space(text, named_by_user=name)
    network = points.architecture(points.parse(found.choice), found.classes)
    origin = None if found.provenance is None else {**found.provenance, "miou": {}, "latency": None}
    return network.replace(space=text, choice=found.choice, provenance=origin)


def _split_options(arch: str) -> tuple[str, str]:
    """A file's path and the options after it."""
    path, suffix, tail = arch.rpartition(".json:")
    return (f"{path}.json", tail) if suffix else (arch, "")


def is_file(arch: str) -> bool:
    """Whether ARCH of the command line is a file's path; a name goes before a file or folder that is called so."""
    path = Path(_split_options(arch)[0])
    return path.suffix == ".json" or (path.exists() and arch not in {*names(BASELINES), *names(SPACES)})


def loaded(group: str, name: str) -> Callable[..., Any]:
    """What the entry point `name` of a group stands for; raises `ValueError` for an unknown one, with the known."""
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


def _call(make: Callable[..., Any], where: str, options: dict[str, Any]) -> Any:
    """Call with options checked and converted by the callable's own annotations."""
    try:
        if isinstance(make, type) and issubclass(make, BaseModel):
            return make.model_validate(options)
        return validate_call(config=ConfigDict(arbitrary_types_allowed=True))(make)(**options)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        if problem["type"] in {"unexpected_keyword_argument", "extra_forbidden"}:
            raise ValueError(f"{where}: unknown option {problem['loc'][-1]!r}; known: {_known(make)}") from None
        raise ValueError(one_line(error, where)) from None


def _known(make: Callable[..., Any]) -> str:
    return ", ".join(name for name in inspect.signature(make).parameters if name != "num_classes")
