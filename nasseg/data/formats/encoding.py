"""From the pixels of mask files to class indices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nasseg.data.dataset import DataError
from nasseg.data.formats.description import Colour, Description
from nasseg.data.formats.images import MaskFile

UNKNOWN = -1
INDICES = 1 << 16
"""What a 16-bit mask may hold."""


class UnknownValueError(DataError):
    """A mask with pixels that stand for no class: `values`, indices or colours, the most frequent first."""

    def __init__(self, message: str, values: Sequence[int | Colour] = ()) -> None:
        super().__init__(message)
        self.values = tuple(values)


class _Colours(NamedTuple):
    """A table of colours: the class of colour code c is `classes[c % length]`, if `codes[c % length]` is c."""

    codes: NDArray[np.int64]
    classes: NDArray[np.int16]


class Encoding:
    """What stands for which class in the masks of a data set."""

    def __init__(self, description: Description) -> None:
        self._classes = len(description.names)
        self._ignore_index = description.ignore_index
        self._reading = description.masks
        self._is_plain = isinstance(description.classes, tuple) and not description.ignore
        rest = self._ignore_index if description.ignore == "rest" else UNKNOWN
        self._rest = rest
        self._indices = {self._ignore_index: self._ignore_index}
        self._colours: dict[Colour, int] = {}
        if description.ignore != "rest":
            self._learn((value, self._ignore_index) for value in description.ignore)
        positions = {name: position for position, name in enumerate(description.names)}
        self._learn((value, positions[name]) for name, value in description.values())

    def _learn(self, meanings: Iterable[tuple[int | Colour, int]]) -> None:
        for value, meaning in meanings:
            if isinstance(value, int):
                self._indices[value] = meaning
            else:
                self._colours[value] = meaning

    @property
    def key(self) -> object:
        """What the classes of a mask's pixels depend on, beside the file; `None` if indices alone are read."""
        if self._is_plain and self._reading == "auto" and not self._colours:
            return None
        return self._reading, self._rest, sorted(self._indices.items()), sorted(self._colours.items())

    def __getstate__(self) -> dict[str, Any]:
        """All but the tables, which every process makes for itself."""
        return {name: value for name, value in self.__dict__.items() if not name.endswith("_table")}

    @cached_property
    def _index_table(self) -> NDArray[np.int16]:
        table = np.full(INDICES, self._rest, np.int16)
        for index, meaning in self._indices.items():
            table[index] = meaning
        return table

    @cached_property
    def _colour_table(self) -> _Colours:
        codes = np.array([_code(np.array(colour)) for colour in self._colours], np.int64)
        length = max(257, len(codes) ** 2 | 1)
        while len(np.unique(codes % length)) < len(codes):
            length += 2
        table = _Colours(np.full(length, UNKNOWN, np.int64), np.full(length, self._rest, np.int16))
        table.codes[codes % length] = codes
        table.classes[codes % length] = list(self._colours.values())
        return table

    def read(self, paths: Sequence[Path], *, is_instances: bool = False) -> NDArray[np.uint8]:
        """Read a mask as (H, W) class indices; several files, one for each instance, make one mask of 0 and 1.

        Raises `DataError` if a file cannot be read, and `UnknownValueError` if pixels stand for no class.
        """
        if is_instances:
            return self._classified(_union(paths), paths[0])
        file = MaskFile(paths[0])
        indices = file.indices
        as_colour = self._reading == "colour" or (self._reading == "auto" and indices is None)
        if not as_colour:
            if indices is None:
                indices = _grey(file)
            return self._classified(indices, file.path)
        if file.colours is None:
            raise DataError(
                f'{file.path} has no colours, but dataset.json says "masks": "colour"; write "index" or leave it'
            )
        if not self._colours:
            raise DataError(
                f"{file.path} is a colour image, but no class has a colour of its own; give dataset.json a palette"
            )
        return self._coloured(file)

    def _classified(self, indices: NDArray[Any], path: Path) -> NDArray[np.uint8]:
        if indices.size and (indices.min() < 0 or indices.max() >= INDICES):
            raise DataError(
                f"{path} holds {indices.min()} to {indices.max()}, but must hold indices of 0 to {INDICES - 1}"
            )
        classes: NDArray[np.int16] = self._index_table[indices]
        if (classes == UNKNOWN).any():
            values = _by_frequency(indices[classes == UNKNOWN])
            if self._is_plain:
                rule = f"0 to {self._classes - 1}, or {self._ignore_index} to ignore a pixel"
            else:
                rule = f"one of {_shortened(sorted(self._indices))}"
            raise UnknownValueError(f"{path} holds class index {min(values)}, but must hold {rule}", values)
        return classes.astype(np.uint8)

    def _coloured(self, file: MaskFile) -> NDArray[np.uint8]:
        assert file.colours is not None
        table = self._colour_table
        codes = _code(file.colours)
        slots = codes % len(table.codes)
        is_known = table.codes[slots] == codes
        classes = np.where(is_known, table.classes[slots], np.int16(self._rest))
        if (classes == UNKNOWN).any():
            found = _by_frequency(codes[classes == UNKNOWN])
            colours = [(code >> 16, code >> 8 & 255, code & 255) for code in found]
            which = ", ".join(f"[{r}, {g}, {b}]" for r, g, b in colours[:3]) + (", …" if len(colours) > 3 else "")
            raise UnknownValueError(
                f"{file.path} holds {_colours(len(colours))} no class's: {which}; add it to classes or ignore", colours
            )
        return classes.astype(np.uint8)


def _code(colours: NDArray[Any]) -> NDArray[np.int64]:
    red, green, blue = (colours[..., channel].astype(np.int64) for channel in range(3))
    return red << 16 | green << 8 | blue


def _grey(file: MaskFile) -> NDArray[np.uint8]:
    """The one channel of a colour image whose three are equal."""
    assert file.colours is not None
    if not (file.colours == file.colours[..., :1]).all():
        raise DataError(
            f'{file.path} holds colours, but dataset.json says "masks": "index"; write "colour" and a palette'
        )
    grey: NDArray[np.uint8] = file.colours[..., 0]
    return grey


def _union(paths: Sequence[Path]) -> NDArray[np.uint8]:
    """Where any of several masks, one an instance, is not zero."""
    union: NDArray[np.bool_] | None = None
    for path in paths:
        file = MaskFile(path)
        pixels = file.indices if file.indices is not None else file.colours.any(-1)  # type: ignore[union-attr]
        if union is not None and pixels.shape != union.shape:
            raise DataError(
                f"{path} has another size than {paths[0].name} beside it; all instances must have the image's"
            )
        union = pixels.astype(bool) if union is None else union | pixels.astype(bool)
    assert union is not None
    return union.astype(np.uint8)


def _by_frequency(values: NDArray[Any]) -> list[int]:
    found, counts = np.unique(values, return_counts=True)
    return [int(value) for value in found[np.argsort(-counts, kind="stable")]]


def _colours(count: int) -> str:
    return "a colour that is" if count == 1 else f"{count} colours that are"


def _shortened(values: Sequence[int]) -> str:
    return ", ".join(map(str, values[:12])) + (", …" if len(values) > 12 else "")
