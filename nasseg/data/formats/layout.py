"""Where the files of a data set are: patterns of paths, and lists of names or of pairs."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from nasseg.data.dataset import DataError
from nasseg.data.formats import matlab
from nasseg.data.formats.lists import Item, listed

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm")
"""Of image files, whatever their case."""
MOST_NAMED = 3
LONGEST_PATTERN = 300
MOST_PATTERNS = 4


class Found(NamedTuple):
    """The images of a split that have masks, and lines for people on what was left out."""

    items: tuple[Item, ...]
    notes: tuple[str, ...]


class Layout(BaseModel):
    """Where images and masks are, relative to the data set's folder.

    `{split}` in a pattern is the name of a split, `{name}` that of an image, folders included; a pattern without an
    ending takes every image format, and a `*` in that of masks joins several files, one for each instance, to a mask.
    Of several patterns of masks, an image's mask is by the first that has one. `.mat` is for masks of SBD.
    `list` is the pattern of text files of names, of images' paths, or of pairs of paths; a list goes before a folder of
    the same split. `splits` gives splits other names than their folders or lists have, `{"val": "validation"}`, or
    picks them by image name: `{"val": ["drive7_*"]}`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: str | None = None
    masks: str | Annotated[tuple[str, ...], Field(min_length=1, max_length=MOST_PATTERNS)] | None = None
    list: str | None = None
    splits: dict[str, str | tuple[str, ...]] = Field(default_factory=dict)

    @field_validator("images", "masks", "list")
    @classmethod
    def _inside(cls, given: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        for pattern in _several(given):
            within(pattern)
        return given

    @field_validator("splits")
    @classmethod
    def _named(cls, splits: dict[str, str | tuple[str, ...]]) -> dict[str, str | tuple[str, ...]]:
        for name, value in splits.items():
            if not name or re.search(r"[+@\s/]", name):
                raise ValueError(f"{name!r} cannot name a split; leave out spaces and + @ /")
            if isinstance(value, str):
                within(value)
        return splits

    @model_validator(mode="after")
    def _complete(self) -> Layout:
        for what in ("images", "masks"):
            patterns = _several(getattr(self, what))
            if not patterns and self.list is None:
                raise ValueError(f"{what} is missing: give its pattern, like {what}/{{split}}/{{name}}")
            for pattern in patterns:
                if "{name}" not in pattern:
                    raise ValueError(f"{what} is {pattern!r}, but must hold {{name}}")
                if len(pattern) > LONGEST_PATTERN or pattern.count("*") > 1:
                    raise ValueError(
                        f"{what} is {pattern[:40]!r}, but must hold one * and {LONGEST_PATTERN} characters at most"
                    )
        if (self.images is None) != (self.masks is None):
            raise ValueError("images and masks must both be given, or neither, with a list of pairs")
        if self.list is not None and "{split}" not in self.list:
            raise ValueError(f"list is {self.list!r}, but must hold {{split}}")
        return self

    @property
    def shown_masks(self) -> str:
        """The patterns of masks, for people."""
        return " or ".join(_several(self.masks))


def _several(given: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else given or ()


def within(path: str) -> str:
    """Return a relative path that stays in its folder; raises `ValueError` for any other."""
    parts = PurePosixPath(path.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or re.match(r"[A-Za-z]:", path) or "\0" in path:
        raise ValueError(f"{path!r} leads out of the data set's folder; give a path below it")
    return path


def walk(folder: Path) -> Iterator[str]:
    """Yield the files below a folder in order, relative to it, without hidden ones and what systems leave behind."""
    seen: set[str] = set()
    for base, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        real = os.path.realpath(base)
        if real in seen:  # a link back to where this came from
            folders.clear()
            continue
        seen.add(real)
        below = PurePosixPath(Path(base).relative_to(folder).as_posix())
        yield from ((below / name).as_posix() for name in sorted(files) if not name.startswith("."))


class Pattern:
    """One pattern of paths: the files of a folder that match it, by split and name."""

    def __init__(self, text: str) -> None:
        text = _with_low_ending(text)
        self._endings = (matlab.ENDING,) if text.endswith(matlab.ENDING) else SUFFIXES
        anything = not text.endswith(("*", *self._endings))
        seen: set[str] = set()
        expression = ""
        for part in re.split(r"(\{split\}|\{name\}|\*)", text):
            if part in ("{split}", "{name}"):
                key = part[1:-1]
                wild = "[^/]+" if key == "split" else ".+"
                expression += f"(?P={key})" if key in seen else f"(?P<{key}>{wild})"
                seen.add(key)
            else:
                expression += "[^/]*" if part == "*" else re.escape(part)
        if anything:
            expression += "(?:" + "|".join(map(re.escape, SUFFIXES)) + ")"
        self.has_split = "split" in seen
        self._expression = re.compile(expression)
        literal = re.split(r"\{|\*", text)[0]
        self.folder = literal.rpartition("/")[0]

    def find(self, root: Path, paths: Sequence[str] | None = None) -> Iterator[tuple[str, str, Path]]:
        """Yield (split, name, file) of the files below `root`; split is empty if the pattern has none.

        `paths` are the files below `root`, if they are known.
        """
        before = f"{self.folder}/" if self.folder else ""
        found = (before + path for path in walk(root / self.folder)) if paths is None else paths
        for relative in found:
            lowered = _with_low_ending(relative)
            if lowered.endswith(self._endings) and (match := self._expression.fullmatch(lowered)):
                groups = match.groupdict()
                yield groups.get("split", ""), groups["name"], root / relative


def _with_low_ending(path: str) -> str:
    ending = PurePosixPath(path).suffix
    return path.removesuffix(ending) + ending.lower()


class Files:
    """The files of a layout in a folder, found once."""

    def __init__(self, root: Path, layout: Layout, paths: Sequence[str] | None = None) -> None:
        """`paths` are all files below `root`, if they are known."""
        self.root, self.layout, self._paths = root, layout, paths

    @cached_property
    def _image_pattern(self) -> Pattern | None:
        return None if self.layout.images is None else Pattern(self.layout.images)

    @cached_property
    def _mask_patterns(self) -> tuple[Pattern, ...]:
        return tuple(map(Pattern, _several(self.layout.masks)))

    def _grouped(self, pattern: Pattern | None) -> dict[tuple[str, str], list[Path]]:
        found: dict[tuple[str, str], list[Path]] = {}
        for split, name, path in pattern.find(self.root, self._paths) if pattern is not None else ():
            found.setdefault((split, name), []).append(path)
        return found

    @cached_property
    def _masks(self) -> dict[tuple[str, str], list[Path]]:
        found: dict[tuple[str, str], list[Path]] = {}
        for pattern in self._mask_patterns:
            found = {**self._grouped(pattern), **found}
        return found

    @cached_property
    def _images(self) -> dict[tuple[str, str], list[Path]]:
        masks = {path for paths in self._masks.values() for path in paths}
        found = self._grouped(self._image_pattern)
        return {key: left for key, paths in found.items() if (left := [path for path in paths if path not in masks])}

    def mask_of(self, key: tuple[str, str]) -> tuple[Path, ...]:
        """The files of the mask of the image with this split and name; none if there is no mask."""
        split, name = key
        return tuple(self._masks.get((split, name), self._masks.get(("", name), [])))

    @cached_property
    def lists(self) -> dict[str, Path]:
        """The files that list a split, by its name in the layout."""
        if self.layout.list is None:
            return {}
        before, _, after = self.layout.list.partition("{split}")
        found = sorted(self.root.glob(f"{glob.escape(before)}*{glob.escape(after)}"))
        return {
            path.relative_to(self.root).as_posix().removeprefix(before).removesuffix(after): path
            for path in found
            if path.is_file() and not path.name.startswith(".")
        }

    @cached_property
    def splits(self) -> dict[str, str | tuple[str, ...]]:
        """Each split's name, with its name in the layout or the image names that it has."""
        folders = {key[0] for key in self._images if key[0] and self.mask_of(key)}
        there = sorted(folders | set(self.lists))
        if self.layout.splits:
            known = self.layout.splits
            return {name: value for name, value in known.items() if isinstance(value, tuple) or value in there}
        if there:
            return {name: name for name in there if not re.search(r"[+@\s]", name)}
        return {"train": ("*",)} if self._images else {}

    def find(self, split: str) -> Found:
        """The images of a split, in order of name or of its list. Raises `DataError` for a list that does not fit."""
        value = self.splits[split]
        if isinstance(value, str) and value in self.lists:
            items, without = listed(self, self.lists[value])
            return Found(tuple(items), notes(self.root, without, []))
        keys = [
            key
            for key in sorted(self._images)
            if (key[0] == value if isinstance(value, str) else any(fnmatchcase(key[1], wild) for wild in value))
        ]
        items, without = [], []
        for key in keys:
            item = self.item(key)
            if item.masks:
                items.append(item)
            else:
                without.append(item.image)
        orphans = self._orphans(value) if isinstance(value, str) else []
        return Found(tuple(items), notes(self.root, without, orphans))

    def item(self, key: tuple[str, str]) -> Item:
        """The image with this split and name, with its mask; raises `DataError` if there are two of either."""
        image, *others = self._images[key]
        if others:
            raise DataError(f"{image} and {others[0].name} share one mask: give each image its own name")
        masks = self.mask_of(key)
        if len(masks) > 1 and not self.has_instances:
            raise DataError(f"{masks[0]} and {masks[1].name} are masks of one image: keep one of them")
        return Item("/".join(filter(None, key)), image, masks)

    @property
    def has_instances(self) -> bool:
        """Whether a mask consists of a file for each instance."""
        return any("*" in pattern for pattern in _several(self.layout.masks))

    @cached_property
    def by_name(self) -> Mapping[str, tuple[str, str]]:
        """The key of each image by its name, folders included, and by its path and that without the ending."""
        found = {}
        for key, paths in self._images.items():
            found["/".join(filter(None, key))] = key
            for path in paths:
                relative = path.relative_to(self.root)
                found.setdefault(relative.as_posix(), key)
                found.setdefault("/".join(filter(None, key)) + path.suffix, key)
                found.setdefault(relative.with_suffix("").as_posix(), key)
        return found

    def _orphans(self, split: str) -> list[Path]:
        return [paths[0] for key, paths in self._masks.items() if key[0] == split and key not in self._images]

    @property
    def image_folder(self) -> Path:
        """The folder that all images are in, for messages."""
        return self.root / (self._image_pattern.folder if self._image_pattern else "")

    @cached_property
    def pairs(self) -> int:
        """How many images have masks, or are named in lists if the layout has lists alone."""
        if self.layout.images is None:
            return len(self.lists)
        return sum(bool(self.mask_of(key)) for key in self._images)


def notes(root: Path, without_mask: list[Path], without_image: list[Path]) -> tuple[str, ...]:
    """Lines that count what is left out of a split."""
    lines = []
    for kind, missing, paths in (("images", "mask", without_mask), ("masks", "image", without_image)):
        if paths:
            named = ", ".join(path.relative_to(root).as_posix() for path in paths[:MOST_NAMED])
            what = f"{len(paths)} {kind} have" if len(paths) > 1 else f"1 {kind[:-1]} has"
            lines.append(
                f"{what} no {missing} and {'are' if len(paths) > 1 else 'is'} left out: {named}"
                + (", …" if len(paths) > MOST_NAMED else "")
            )
    return tuple(lines)


def first_that_fits(root: Path, layouts: tuple[Layout, ...], roots: tuple[str, ...] = ("",)) -> Files | None:
    """The first of the layouts, in the first of the folders below `root`, that pairs any images with masks.

    One of which all splits are there goes before others.
    """
    for below in roots:
        folder = root / below if below else root
        fitting = [files for layout in layouts if folder.is_dir() and (files := Files(folder, layout)).pairs]
        if fitting:
            return next((files for files in fitting if files.layout.splits.keys() <= files.splits.keys()), fitting[0])
    return None
