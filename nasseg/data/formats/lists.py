"""Text files that list the images of a split, by name, by path, or with their masks."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from reprlib import repr as short_repr
from typing import TYPE_CHECKING, NamedTuple

from nasseg.data.dataset import DataError
from nasseg.foreign import MAX_TEXT_BYTES, read_bytes

if TYPE_CHECKING:
    from nasseg.data.formats.layout import Files

RULE = "give FOLDER/NAME without suffix, or paths"


class Item(NamedTuple):
    """An image with its mask: one file or, if it is drawn instance by instance, several."""

    name: str
    image: Path
    masks: tuple[Path, ...]


def listed(files: Files, listing: Path) -> tuple[list[Item], list[Path]]:
    """The items of a list in its order, and the images in it that have no mask.

    A path that begins with / is looked for below the folder, without as many of its first parts as it takes: lists
    have been written on other machines. Raises `DataError` for a line that names no image in the folder.
    """
    items, without = {}, []
    for number, line in enumerate(map(str.strip, _lines(listing)), start=1):
        if not line:
            continue
        item = _item(files, line)
        if item is None:
            where = f"{listing} line {number}: {short_repr(line)}"
            raise DataError(f"{where} is not an image in {files.image_folder}; {RULE}")
        if item.masks:
            items[item.name] = item
        else:
            without.append(item.image)
    return list(items.values()), without


def _lines(listing: Path) -> list[str]:
    try:
        return read_bytes(listing, MAX_TEXT_BYTES, "list an image a line").decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{listing} is not UTF-8 text: byte {error.start}") from None
    except ValueError as error:
        raise DataError(str(error)) from None


def _item(files: Files, line: str) -> Item | None:
    """The image that a line names, by its name, or by two paths, or by one."""
    if line in files.by_name:
        return files.item(files.by_name[line])
    for gap in re.finditer(r"[,;\s]+", line):  # names may hold any of these, too
        image, mask = (_below(files.root, part) for part in (line[: gap.start()], line[gap.end() :]))
        if image is not None and mask is not None:
            return Item(image.relative_to(files.root).with_suffix("").as_posix(), image, (mask,))
    name = next((tail for tail in _tails(line) if tail in files.by_name), None)
    return None if name is None else files.item(files.by_name[name])


def _tails(path: str) -> list[str]:
    """The path itself and, if it begins with /, all that it ends with, the longest first."""
    if not path.startswith("/"):
        return [path.removeprefix("./")]
    parts = path.strip("/").split("/")
    return ["/".join(parts[i:]) for i in range(len(parts))]


def _below(root: Path, path: str) -> Path | None:
    """The file below `root` that a path in a list means, if there is one."""
    if ".." in PurePosixPath(path).parts:
        return None
    return next((root / tail for tail in _tails(path) if tail and (root / tail).is_file()), None)
