"""What people often get wrong in masks and descriptions, seen in the files, and what to write instead."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from nasseg.data.checking.findings import Finding
from nasseg.data.checking.survey import Survey
from nasseg.data.dataset import DataError, Dataset, Split
from nasseg.data.folder import FolderDataset, FolderSplit, MaskSizeError
from nasseg.data.formats.description import Colour
from nasseg.data.formats.encoding import UnknownValueError
from nasseg.data.formats.images import LossyMaskError, MaskFile, brightest_of_16_bits
from nasseg.data.formats.lists import Item
from nasseg.errors import some_of

LOOKED_AT = 40
"""Masks of a split whose files are looked into, evenly among all, and images."""
MANY_COLOURS = 4
"""Times as many colours as classes, from which they are taken for mixtures."""
DARK = 1 / 8
"""Share of 65535 below which the brightest pixels of 16-bit images are dark."""


@dataclass
class Stored:
    """What some mask files hold, as it is stored."""

    indices: Counter[int] = field(default_factory=Counter)
    colours: Counter[Colour] = field(default_factory=Counter)
    palette: dict[int, Colour] = field(default_factory=dict)
    """The colours of the indices that occur in files with a palette."""
    grey_colours: int = 0
    """Colour images whose three channels are equal."""
    masks: int = 0


def mistakes(dataset: Dataset, surveyed: Sequence[tuple[Split, Survey]]) -> list[Finding]:
    """The mistakes that the files of a folder give away, each with what to write; none for other data sets."""
    if not isinstance(dataset, FolderDataset):
        return []
    errors = [error for _, survey in surveyed for error in survey.bad.values()]
    items = [item for split, _ in surveyed for item in _some_items(split)]
    stored = stored_in(items)
    return [
        *_of_files(errors),
        *_of_indices(dataset, surveyed, stored),
        *_of_colours(dataset, errors, stored),
        *_dark(items),
    ]


def stored_in(items: Sequence[Item]) -> Stored:
    """Look into the mask files of some images; those that cannot be read are left out."""
    found = Stored()
    for item in items:
        try:
            file = MaskFile(item.masks[0])
        except DataError:
            continue
        found.masks += 1
        if file.indices is not None:
            values, counts = np.unique(file.indices, return_counts=True)
            found.indices.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
        if file.colours is None:
            continue
        flat = file.colours.reshape(-1, 3)
        colours, first, counts = np.unique(flat, axis=0, return_index=True, return_counts=True)
        if file.indices is not None:
            indices = file.indices.ravel()[first].tolist()
            found.palette |= dict(zip(indices, map(_colour, colours), strict=True))
        else:
            found.colours.update(dict(zip(map(_colour, colours), counts.tolist(), strict=True)))
            found.grey_colours += bool((colours == colours[:, :1]).all())
    return found


def _colour(levels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Colour:
    red, green, blue = levels.tolist()
    return red, green, blue


def _some_items(split: Split) -> list[Item]:
    items = split.items if isinstance(split, FolderSplit) else ()
    return list(items[:: max(1, len(items) // LOOKED_AT)])


def _of_files(errors: Sequence[DataError]) -> Iterator[Finding]:
    if lossy := sum(isinstance(error, LossyMaskError) for error in errors):
        yield Finding(
            f"{lossy} masks are JPEG files: make them anew as PNG, from the labels that they were drawn from", True
        )
    turned = sum(isinstance(error, MaskSizeError) and error.is_turned for error in errors)
    if turned:
        yield Finding(f"{turned} masks have width and height swapped: turn them by 90°, as their images are", True)
    if others := sum(isinstance(error, MaskSizeError) for error in errors) - turned:
        yield Finding(f"{others} masks have another size than their images: resize them with nearest neighbour", True)


def _of_indices(dataset: FolderDataset, surveyed: Sequence[tuple[Split, Survey]], stored: Stored) -> Iterator[Finding]:
    names, ignored = list(dataset.classes), dataset.ignore_index
    errors = [error for _, survey in surveyed for error in survey.bad.values()]
    strange = {
        value for e in errors if isinstance(e, UnknownValueError) for value in e.values if isinstance(value, int)
    }
    unknown, values = bool(strange), sorted(strange | set(stored.indices))
    if values == [0, 255] and (unknown or all(len(survey.used) < 2 for _, survey in surveyed)):
        given = names if len(names) == 2 else ["background", "object"]
        yield Finding(f"masks hold 0 and 255: write {_written(given, values)}, if 255 is a class and not void", True)
    elif unknown and len(rest := [value for value in values if value != ignored]) == len(names):
        why = "indices begin at 1" if rest == list(range(1, len(names) + 1)) else f"masks hold {some_of(rest)}"
        yield Finding(f"{why}: write {_written(names, rest)}", True)
    elif unknown and values[0] == 0 and len(names) in values and max(set(values) - {ignored}) == len(names):
        yield Finding(
            f"masks hold 0 to {len(names)} for {len(names)} classes: if 0 is void, write "
            f'{_written(names, list(range(1, len(names) + 1)))}, "ignore": [0]; else name the class that is missing',
            True,
        )
    elif unknown:
        yield Finding(f"masks hold {some_of(values)}: say in classes what each stands for, or add it to ignore", True)


def _of_colours(dataset: FolderDataset, errors: Sequence[DataError], stored: Stored) -> Iterator[Finding]:
    known = {value for _, value in dataset.description.values() if isinstance(value, tuple)}
    is_grey = bool(stored.masks) and stored.grey_colours == stored.masks
    if is_grey and dataset.description.masks != "index" and not set(stored.colours) <= known:
        yield Finding('masks are class indices in three equal channels: write "masks": "index"', True)
        return
    strange = [error.values for error in errors if isinstance(error, UnknownValueError)]
    unknown = Counter(value for values in strange for value in values if not isinstance(value, int))
    if unknown and all(colour[::-1] in known for colour in unknown):
        yield Finding("masks have red and blue swapped: swap them in every colour of the palette", True)
    elif len(unknown) > MANY_COLOURS * len(dataset.classes):
        yield Finding(
            f"masks hold {len(unknown)} colours that are no class's, as after JPEG or interpolation: make them anew as "
            "PNG, resized with nearest neighbour",
            True,
        )
    elif unknown:
        text = f"masks hold colours that are no class's: {some_of(unknown)}; add each to classes or to ignore"
        yield Finding(text, is_error=True)
    shown = {index: dataset.palette[index] for index in stored.palette if index < len(dataset.palette)}
    colours = set(stored.palette.values())
    if (
        dataset.description.masks == "auto"
        and len(colours & set(dataset.palette)) > 1
        and colours <= known | {(0, 0, 0)}
        and any(stored.palette[index] != colour for index, colour in shown.items())
    ):
        yield Finding('masks have the palette\'s colours under other indices: write "masks": "colour"', True)


def _dark(items: Sequence[Item]) -> Iterator[Finding]:
    levels = [level for item in items if (level := brightest_of_16_bits(item.image)) is not None]
    if levels and 0 < max(levels) < DARK * 65535:
        yield Finding(
            f"16-bit images are no brighter than {max(levels)} of 65535, and so nearly black: stretch them first"
        )


def _written(names: Sequence[str], values: Sequence[int]) -> str:
    text = json.dumps(dict(zip(names, values, strict=True)))
    return f'"classes": {text if len(text) < 120 else text[:117] + "…}"}'
