"""The layout that a folder seems to have, by the names of its folders and files."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath

from nasseg.data.dataset import DataError
from nasseg.data.formats.layout import SUFFIXES, Files, Layout, walk

MOST_FILES = 500_000
MOST_WAYS = 6
TRIED = 64
"""Masks, evenly among all, whose names tell how those of masks and images differ."""
MASK_WORD = re.compile(
    r"masks?|labels?|labelled|annotations?|annots?|ann|gt|gtfine|gtcoarse|groundtruth|truth|manual|targets?|trimaps?|"
    r"seg|segmentations?|segmentationclass(aug)?"
)
IMAGE_WORD = re.compile(r"images?|imgs?|photos?|pictures?|jpegimages|leftimg8bit|inputs?|rgb|frames?|stillsraw")
SPLIT_NAMES = {
    "train": ("train", "training", "trn", "train_set"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "tst"),
}
SPLIT_START = re.compile(
    r"(training|train|trn|validation|valid|val|testing|test|tst)(?![a-z])|"
    r"(training|train|validation|valid|val|testing|test)(?=annot|mask|label|image|img)"
)
LISTS = ("{split}.txt", "splits/{split}.txt", "lists/{split}.txt", "list/{split}.txt", "ImageSets/{split}.txt")
LIST_PATTERNS = (*LISTS, "ImageSets/Segmentation/{split}.txt", "{split}_list.txt", "{split}.csv")

Key = tuple[str, str, str]
"""Of a file: its split, its folders behind what templates have, and its name without ending."""
Affixes = tuple[str, str]
"""What a file's name has before and after the name that image and mask share."""


@dataclass
class Group:
    """Files with one template: their folder, with `{split}` for the part that names a split."""

    template: str
    is_mask: bool
    endings: dict[Key, set[str]] = field(default_factory=dict)

    @property
    def has_split(self) -> bool:
        """Whether there is a split in the template."""
        return "{split}" in self.template

    def pattern(self, affixes: Affixes, ending: str = "") -> str:
        """The pattern of the group's files whose names have these parts around the shared one."""
        return f"{self.template}{'/' if self.template else ''}{affixes[0]}{{name}}{affixes[1]}{ending}"


def find_layout(root: Path) -> Layout | None:
    """The layout of the images and masks below `root`, or `None` if none pairs any."""
    files = [path for path in islice(walk(root), MOST_FILES) if path.lower().endswith(SUFFIXES)]
    candidates = [*_instances(files), *_paired(_groups(files))]
    best, most = None, 0
    for layout in candidates:
        found = Files(root, layout, files)
        if found.pairs > most:
            best, most = layout, found.pairs
    if best is None:
        return _lists_of_pairs(root)
    return _named(root, best)


def _groups(paths: Iterable[str]) -> list[Group]:
    groups: dict[tuple[str, bool], Group] = {}
    for path in map(PurePosixPath, paths):
        template, last, split, is_mask = [], 0, "", False
        for position, folder in enumerate(path.parts[:-1], start=1):
            start = None if split else SPLIT_START.match(folder.lower())
            rest = folder[start.end() :] if start else folder
            if start:
                split = folder[: start.end()]
            template.append("{split}" + rest if start else folder)
            words = set(re.split(r"[^a-z]+", rest.lower())) | {rest.lower().strip("_-")}
            names_masks = any(map(MASK_WORD.fullmatch, words))
            is_mask = is_mask or names_masks
            if start or names_masks or any(map(IMAGE_WORD.fullmatch, words)):
                last = position
        group = groups.setdefault(("/".join(template[:last]), is_mask), Group("/".join(template[:last]), is_mask))
        key = split, "/".join(path.parts[last:-1]), path.stem
        group.endings.setdefault(key, set()).add(path.suffix.lower())
    return [groups[key] for key in sorted(groups)]


def _paired(groups: list[Group]) -> Iterator[Layout]:
    """Layouts for the pairs of groups that may be images and their masks, or one group with both."""
    for images in groups:
        for masks in groups:
            if images.is_mask or not (masks.is_mask or masks is images) or images.has_split > masks.has_split:
                continue
            if masks is not images:
                yield Layout(images=images.pattern(("", "")), masks=masks.pattern(("", "")))
            for image, mask in _affixes(images, masks):
                yield Layout(images=images.pattern(image), masks=masks.pattern(mask))
            if masks is images and (endings := _two_endings(images)):
                of_images, of_masks = (images.pattern(("", ""), ending) for ending in endings)
                yield Layout(images=of_images, masks=of_masks)


def _affixes(images: Group, masks: Group) -> list[tuple[Affixes, Affixes]]:
    """How the names of images and masks differ, at their ends or at their starts; the most frequent ways first."""
    found: Counter[tuple[Affixes, Affixes]] = Counter()
    keys = sorted(masks.endings)
    for way in (1, -1):
        ordered: dict[tuple[str, str], list[str]] = defaultdict(list)
        for split, folder, name in images.endings:
            ordered[split if masks.has_split else "", folder].append(name[::way])
        for names in ordered.values():
            names.sort()
        for split, folder, name in keys[:: max(1, len(keys) // TRIED)]:
            names, wanted = ordered.get((split, folder), []), name[::way]
            place = bisect_left(names, wanted)
            for other in names[max(0, place - 1) : place + 2]:
                length = _common_length(other, wanted)
                while length and wanted[length - 1] in "_-. " and length < min(len(other), len(wanted)):
                    length -= 1
                if length and other != wanted:
                    image, mask = other[length:][::way], wanted[length:][::way]
                    found[(("", image), ("", mask)) if way > 0 else ((image, ""), (mask, ""))] += 1
    usual = sorted(found, key=lambda affixes: (-found[affixes], _taste("".join(affixes[1])), affixes))
    return usual[:MOST_WAYS]


def _taste(mask: str) -> tuple[bool, int]:
    """Prefer masks of classes to those in colour or of instances, then short names."""
    return any(word in mask.lower() for word in ("color", "colour", "instance")), len(mask)


def _two_endings(group: Group) -> tuple[str, str] | None:
    """The endings of images and masks that lie in one folder under the same names: the masks are the PNG files."""
    pairs = Counter(tuple(sorted(endings)) for endings in group.endings.values() if len(endings) == 2)
    for (first, second), _ in pairs.most_common(1):
        if ".png" in (first, second):
            return (first, second) if second == ".png" else (second, first)
    return None


def _instances(paths: list[str]) -> Iterator[Layout]:
    """Folders of one image each, with a folder of masks beside it: one mask for each instance."""
    found: Counter[tuple[str, str, str]] = Counter()
    for path in paths:
        parts = PurePosixPath(path).parts
        if len(parts) >= 3 and IMAGE_WORD.fullmatch(parts[-2].lower()) and parts[-3] == PurePosixPath(path).stem:
            found["/".join(parts[:-3]), parts[-2], PurePosixPath(path).suffix] += 1
    for (before, folder, _), count in found.most_common(4):
        if count > 1:
            prefix = f"{before}/" if before else ""
            for masks in ("masks", "mask", "labels"):
                yield Layout(images=f"{prefix}{{name}}/{folder}/{{name}}", masks=f"{prefix}{{name}}/{masks}/*")


def _lists_of_pairs(root: Path) -> Layout | None:
    layout = next((fitting for pattern in LIST_PATTERNS if (fitting := _listed(root, Layout(list=pattern)))), None)
    return None if layout is None else _named(root, layout)


def _named(root: Path, layout: Layout) -> Layout:
    """The layout with its lists, if there are any, and with the usual names for its splits."""
    if layout.list is None and "{split}" not in (layout.images or ""):
        tried = (_listed(root, layout.model_copy(update={"list": pattern})) for pattern in LIST_PATTERNS)
        layout = next((listed for listed in tried if listed is not None), layout)
    usual = {alias: name for name, aliases in SPLIT_NAMES.items() for alias in aliases}
    own = Files(root, layout).splits
    renamed = {usual.get(name.lower(), name): value for name, value in own.items() if isinstance(value, str)}
    if any(name != value for name, value in renamed.items()):
        return layout.model_copy(update={"splits": renamed})
    return layout


def _listed(root: Path, layout: Layout) -> Layout | None:
    """The layout with those of its lists that name images of it; `None` if none does. Others may list classes."""
    files = Files(root, layout)
    fitting = {split: split for split in files.lists if split in files.splits and _fits(files, split)}
    if not fitting:
        return None
    return layout if len(fitting) == len(files.lists) else layout.model_copy(update={"splits": fitting})


def _fits(files: Files, split: str) -> bool:
    try:
        return bool(files.find(split).items)
    except DataError:
        return False


def _common_length(first: str, second: str) -> int:
    """How many characters two texts begin with in common."""
    shorter = min(len(first), len(second))
    return next((i for i in range(shorter) if first[i] != second[i]), shorter)
