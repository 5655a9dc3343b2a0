"""A description of a folder from what it holds, for its owner to complete."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from nasseg.data.checking.mistakes import Stored, stored_in
from nasseg.data.dataset import DataError
from nasseg.data.folder import PLAIN
from nasseg.data.formats import Files, Layout, find_layout, first_that_fits
from nasseg.data.formats.description import FILE, Colour, voc_colours
from nasseg.data.formats.layout import SUFFIXES, walk
from nasseg.errors import some_of

MOST_MASKS = 300
"""That are looked into, evenly among all."""
MOST_COLOURS = 255
MOST_GAPS = 0.5
"""Share of a range of indices that may not occur for it to be taken as one class each."""
VOID = 255
VOID_NAMES = ("void", "unlabelled", "unlabeled", "ignore", "ignored")
BLACK = (0, 0, 0)
CLASS_FILES = ("class_dict.csv", "label_colors.txt", "classes.txt", "codes.txt", "labels.txt")


class Draft(NamedTuple):
    """A description as the content of `dataset.json`, with what was seen, in lines for people."""

    content: dict[str, Any]
    seen: tuple[str, ...]


def draft(root: Path) -> Draft:
    """Describe the images and masks below `root`; raises `DataError` if there are none or the masks make no sense."""
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; give the one with images and masks")
    files = first_that_fits(root, (PLAIN,))
    layout = PLAIN if files is not None else find_layout(root)
    files = files or (first_that_fits(root, (layout,)) if layout is not None else None)
    if files is None or layout is None:
        raise DataError(_nothing_found(root))
    found = {split: files.find(split) for split in files.splits}
    items = [item for split in found.values() for item in split.items]
    stored = stored_in(items[:: max(1, len(items) // MOST_MASKS)])
    if not stored.masks:
        raise DataError(f"none of the masks can be read, like {items[0].masks[0]}: they must be PNG, TIFF, BMP or GIF")
    content: dict[str, Any] = {"name": root.name, **_classes(root, files, stored)}
    if layout is not PLAIN:
        content["layout"] = layout.model_dump(exclude_none=True, exclude_defaults=True)
    seen = [f"{split}: {len(part.items)} images" for split, part in found.items()]
    seen += [f"{split}: {note}" for split, part in found.items() for note in part.notes]
    return Draft(content, (f"layout: {described(layout)}", *seen))


def described(layout: Layout) -> str:
    """A layout in words."""
    listed = "" if layout.list is None else f"lists {layout.list}"
    if layout.images is None:
        return f"pairs of paths in the {listed}"
    return f"images {layout.images}, masks {layout.shown_masks}{', ' if listed else ''}{listed}"


def _classes(root: Path, files: Files, stored: Stored) -> dict[str, Any]:
    named = _named_classes(root)
    names = [name for name, _ in named]
    if files.has_instances:
        return _content(names if len(names) == 2 else ["background", "object"])
    if stored.colours and stored.grey_colours < stored.masks:
        return _of_colours(stored, named)
    values = sorted(stored.indices or {colour[0]: 1 for colour in stored.colours})
    content = _of_indices(values, names, stored.palette)
    return content if stored.indices else {**content, "masks": "index"}


def _of_indices(values: Sequence[int], names: Sequence[str], palette: dict[int, Colour]) -> dict[str, Any]:
    if list(values) == [0, VOID]:
        given = list(names) if len(names) == 2 else ["background", "object"]
        return _content(dict(zip(given, values, strict=True)))
    used = [value for value in values if value != VOID]
    if not used:
        raise DataError(f"all masks hold {VOID} alone, which is void: say in {FILE} what it stands for")
    count = max(used) + 1
    if len(names) in (count, len(used)) and len(names) >= 2:
        listed = range(count) if len(names) == count else used
    elif len(used) >= MOST_GAPS * count and count <= MOST_COLOURS:
        listed, names = range(count), []
    elif len(used) <= MOST_COLOURS:
        listed, names = used, []
    else:
        raise DataError(f"masks hold {len(used)} indices, but there may be {MOST_COLOURS} classes: merge some")
    names = list(names) or [f"class {value}" for value in listed]
    colours = [palette.get(value) for value in listed]
    shown = None if None in colours or len(set(colours)) < len(colours) else colours
    if list(listed) == list(range(len(names))):
        return _content(names, shown)
    return _content(dict(zip(names, listed, strict=True)), shown)


def _of_colours(stored: Stored, named: Sequence[tuple[str, Colour | None]]) -> dict[str, Any]:
    """Classes by colour: those of a file that names them, and then those that it does not have."""
    known = {colour: name for name, colour in named if colour is not None}
    void = [colour for colour, name in known.items() if name.lower() in VOID_NAMES]
    if known and BLACK in stored.colours and BLACK not in known:
        void.append(BLACK)
    listed = [colour for colour in known if colour not in void]
    listed += sorted(colour for colour in stored.colours if colour not in known and colour not in void)
    if len(listed) > MOST_COLOURS:
        raise DataError(
            f"masks hold {len(stored.colours)} colours, but there may be {MOST_COLOURS} classes: JPEG or "
            "interpolation mixes colours; make masks anew as PNG, resized with nearest neighbour"
        )
    named_here = {BLACK: "background"} | known
    content = _content([named_here.get(colour, f"class {i}") for i, colour in enumerate(listed)], listed)
    return {**content, "ignore": void} if void else content


def _content(classes: Any, palette: Sequence[Colour | None] | None = None) -> dict[str, Any]:
    return {"classes": classes, "palette": list(palette or voc_colours(len(classes))), "ignore_index": VOID}


def _named_classes(root: Path) -> list[tuple[str, Colour | None]]:
    """Names of classes, with their colours if they are known, from a file that data sets often have."""
    for name in CLASS_FILES:
        path = root / name
        if path.is_file() and path.stat().st_size < 1 << 20:
            lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
            found = list(_parsed(lines, is_csv=path.suffix == ".csv"))
            if found and len({name for name, _ in found}) == len(found):
                return found
    return []


def _parsed(lines: Sequence[str], *, is_csv: bool) -> Iterator[tuple[str, Colour | None]]:
    """Parse `name,r,g,b` or `r g b name` or `name` in each line."""
    if is_csv:
        for row in csv.reader(lines):
            if len(row) >= 4 and all(part.strip().isdigit() and int(part) < 256 for part in row[1:4]):
                yield row[0].strip(), (int(row[1]), int(row[2]), int(row[3]))
        return
    for line in filter(None, map(str.strip, lines)):
        match = re.fullmatch(r"(\d{1,3})[\s,]+(\d{1,3})[\s,]+(\d{1,3})[\s,]+(\S.*)", line)
        if match and all(int(level) < 256 for level in match.groups()[:3]):
            yield match[4], (int(match[1]), int(match[2]), int(match[3]))
        elif not line[0].isdigit() and len(line) <= 100:
            yield line, None


def _nothing_found(root: Path) -> str:
    files = [path for path in walk(root) if path.lower().endswith(SUFFIXES)]
    if not files:
        return f"{root} holds no images; give the folder that has images and masks below it"
    folders = Counter(PurePosixPath(path).parent.as_posix() for path in files)
    shown = some_of((f"{folder}/ ({count})" for folder, count in sorted(folders.items())), 4)
    return (
        f"no masks found for the {len(files)} images below {root}, in {shown}: name a folder masks/, or write a "
        f"layout into {FILE} (docs/data.md)"
    )


def as_json(content: dict[str, Any]) -> str:
    """The content of a `dataset.json`, with a line for each class and colour list."""
    text = json.dumps(content, indent=1, ensure_ascii=False)
    return re.sub(r"\[([\d,\s]+)\]", lambda match: f"[{', '.join(match[1].replace(',', ' ').split())}]", text) + "\n"
