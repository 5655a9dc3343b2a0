"""Files that may be someone else's: what they may ask for, and how JSON and YAML are read from them.

Every limit is here. It is checked before anything is allocated for what a file asks for, and its message names it.
"""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from reprlib import repr as short_repr
from typing import Annotated, Any
from unicodedata import category

import yaml
from pydantic import AfterValidator, Field, ValidationError

from nasseg.errors import one_line

MAX_JSON_BYTES, MAX_YAML_BYTES, MAX_TEXT_BYTES = 16 << 20, 64 << 10, 64 << 20
"""Of a JSON file, a YAML file, and a plain list such as a split's."""
MAX_HEADER_BYTES = MAX_JSON_BYTES
"""Of the header of a safetensors file, which may hold an architecture."""
MAX_ONNX_BYTES = (1 << 31) - 1
"""Of an exported file: what ONNX itself allows."""
MAX_MATLAB_BYTES = 64 << 20
"""Of a mask in a MATLAB file, and of that unpacked."""
MAX_LINE_BYTES = 4 << 20
"""Of a line of a search's record."""
MAX_NESTING = 50
"""Lists and objects within each other, in JSON and in YAML."""
MAX_VALUES = 500_000
"""Of a JSON or YAML file, each list and object included."""
MAX_INTEGER = 2**63 - 1

MAX_NODES = 25_000
MAX_INPUTS = 100_000
"""Of all nodes of a network together."""
MAX_NAME = 200
"""Characters of a node's name, or of a folder's in a list of images."""
MAX_CHANNELS = 1 << 16
MAX_STEP = 1024
"""Pixels of a stride or an atrous rate."""
MAX_PARAMETERS = 1 << 28
"""Of a network, twice as many as the largest handcrafted one has: 1 GiB in float32."""
MAX_REFINED = 200_000
"""Colours that telling equal nodes of a graph apart may take."""
MAX_MAP_VALUES = 1 << 30
"""Of one map of a trained model on an image of 512×1024 pixels."""

MAX_SIDE, MAX_IMAGE_PIXELS = 1 << 16, 40_000_000
"""Of an image: its height or width, and its pixels."""


def read_bytes(path: Path, limit: int, fix: str) -> bytes:
    """Read a regular file of at most `limit` bytes; raises a `ValueError` that ends in `fix` otherwise."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
            raise ValueError(f"{path} is {kind}; {fix}")
        if status.st_size > limit:
            raise ValueError(f"{path} has {status.st_size:,} bytes, but must have at most {limit:,}; {fix}")
        return path.read_bytes()
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; {fix}") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}; {fix}") from None


def refuse_program(path: Path) -> None:
    """Raise `ValueError` for a program of `torch.export`, which PyTorch reads by running what is in the file.

    Parts of one are pickles, and sizes are text that SymPy evaluates: refusing pickles alone would not make it safe.
    """
    if path.suffix.lower() == ".pt2":
        raise ValueError(
            f"{path}: opening a .pt2 file runs code in it; give the run it is from, or export --format onnx"
        )


def read_json(path: Path, fix: str) -> Any:
    """Read a JSON file within the limits; raises a `ValueError` that begins with the path and ends in `fix`."""
    try:
        return parse_json(read_bytes(path, MAX_JSON_BYTES, fix))
    except _NotReadError as error:
        raise ValueError(f"{path} {error}; {fix}") from None


def read_yaml(path: Path, fix: str) -> Any:
    """Read a YAML file as `read_json` does, without anchors, aliases and tags."""
    try:
        return parse_yaml(read_bytes(path, MAX_YAML_BYTES, fix))
    except _NotReadError as error:
        raise ValueError(f"{path} {error}; {fix}") from None


def parse_json(text: str | bytes) -> Any:
    """Parse JSON within the limits; raises a one-line `ValueError` that can follow the file's name.

    Keys are unique, integers have 64 bits, and numbers are finite.
    """
    try:
        value = _DECODER.decode(text.decode() if isinstance(text, bytes) else text)
    except UnicodeDecodeError as error:
        raise _NotReadError(f"is not JSON: byte {error.start} is not UTF-8") from None
    except RecursionError:
        raise _NotReadError(_TOO_DEEP) from None
    except json.JSONDecodeError as error:
        raise _NotReadError(f"is not JSON: {error}") from None
    _check_values(value)
    return value


def parse_yaml(text: bytes) -> Any:
    """Parse YAML as `parse_json` does JSON."""
    try:
        value = yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise _NotReadError(f"is not YAML: {error.problem}{line}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise _NotReadError(f"is not YAML: {str(error).splitlines()[0]}") from None
    _check_values(value)
    return value


def _check_values(value: object) -> None:
    waiting: list[tuple[list[Any], int]] = [([value], 0)]
    count = 0
    while waiting:
        parts, depth = waiting.pop()
        count += len(parts)
        if depth > MAX_NESTING:
            raise _NotReadError(_TOO_DEEP)
        if count > MAX_VALUES:
            raise _NotReadError(f"holds over {MAX_VALUES:,} values, the most that are read")
        for one in parts:
            kind = type(one)
            if kind is str:
                continue  # most are, and a record has millions
            if kind is dict:
                waiting.append((list(one.values()), depth + 1))
            elif kind is list:
                waiting.append((one, depth + 1))
            elif kind is int and abs(one) > MAX_INTEGER:
                raise _NotReadError(_too_large(str(one)))
            elif kind is float and not math.isfinite(one):
                raise _NotReadError(f"holds {one}, but numbers must be finite")


class DamagedError(ValueError):
    """A file that is not as it was written: one line with the file and the fix."""


@contextmanager
def damaged(where: object, fix: str) -> Iterator[None]:
    """Turn whatever the block raises on content that is not as it was written into a one-line `DamagedError`."""
    try:
        yield
    except DamagedError:
        raise
    except ValidationError as error:
        raise DamagedError(f"{where} is damaged: {one_line(error)}; {fix}") from None
    except (*_ON_OTHER_DATA, ValueError) as error:
        detail = str(error).splitlines()[0] if str(error) else ""
        raise DamagedError(f"{where} is damaged ({type(error).__name__}: {detail[:80]}); {fix}") from None


def is_printable(text: str) -> bool:
    """Whether a text holds letters, signs and spaces alone; those of other scripts, and of other widths, too."""
    return all(character.isprintable() or category(character) == "Zs" for character in text)


def _printable(text: str) -> str:
    if not is_printable(text):
        raise ValueError(f"{short_repr(text)} holds characters that cannot be printed; leave them out")
    return text


Line = Annotated[str, Field(max_length=1000), AfterValidator(_printable)]
"""The type of a field that is shown, in a terminal too: one line without control characters."""

_ON_OTHER_DATA = LookupError, TypeError, AttributeError, ArithmeticError, AssertionError, RuntimeError, MemoryError


class _NotReadError(ValueError):
    """The rest of a sentence about a file whose content is not read."""


_TOO_DEEP = f"is nested over {MAX_NESTING} deep, the most that is read"


def _too_large(digits: str) -> str:
    return f"holds the integer {short_repr(digits)[1:-1]}, but integers must have at most 63 bits"


def _integer(digits: str) -> int:
    if len(digits) > len(str(MAX_INTEGER)) + 1:
        raise _NotReadError(_too_large(digits))
    return int(digits)


def _mapping(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise _NotReadError(f"has the key {short_repr(twice)} twice")
    return mapping


_DECODER = json.JSONDecoder(parse_int=_integer, object_pairs_hook=_mapping)


class _Loader(yaml.SafeLoader):
    """YAML that holds what it shows: no aliases, tags or repeated keys."""

    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None or event.tag is not None:
            raise yaml.composer.ComposerError(None, None, "anchors, aliases and tags are not read", event.start_mark)
        if self._depth >= MAX_NESTING:
            raise yaml.composer.ComposerError(None, None, f"nested over {MAX_NESTING} deep", event.start_mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        mapping = super().construct_mapping(node, deep)
        if len(mapping) != len(node.value):
            raise yaml.constructor.ConstructorError(None, None, "a key is repeated", node.start_mark)
        return mapping
