"""Images and masks in a folder: where they are is its layout, what the masks' pixels mean its description.

    dataset.json                          {"classes": [...], "palette": [[r, g, b], ...], "ignore_index": 255}
    images/SPLIT/NAME.jpg                 or another image format
    masks/SPLIT/NAME.png                  a class index or a class's colour per pixel
    splits/SPLIT.txt                      optional: lines FOLDER/NAME that make further splits of the images above

is the plain layout. `nasseg.data.formats` has the others (docs/data.md).
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from nasseg.data.dataset import DataError, Dataset, Sample, Split
from nasseg.data.formats import Description, Encoding, Files, Item, Layout, find_layout, first_that_fits
from nasseg.data.formats.description import FILE, read_description, read_merge
from nasseg.data.formats.images import read_image, stored_size, upright_size
from nasseg.data.formats.official import official
from nasseg.foreign import is_printable

__all__ = ["PLAIN", "FolderDataset", "FolderSplit", "MaskSizeError", "OfficialDataset", "read_image"]

PLAIN = Layout(images="images/{split}/{name}", masks="masks/{split}/{name}", list="splits/{split}.txt")
CLASSES_OPTION = ",classes="


class MaskSizeError(DataError):
    """A mask that has not the size of its image; `is_turned` if it has the one of the image turned by 90°."""

    def __init__(self, message: str, *, is_turned: bool = False) -> None:
        super().__init__(message)
        self.is_turned = is_turned


class FolderDataset(Dataset):
    """Your images and masks: folder:PATH, or folder:PATH,classes=FILE.yaml to merge classes."""

    def __init__(self, options: str | Path, description: Description | None = None) -> None:
        """Read the description and find the files; raises `DataError` if either is missing or invalid.

        `options` are the folder and, after a comma, `classes=FILE`. With a `description`, the folder needs none.
        """
        path, _, merge = str(options).partition(CLASSES_OPTION)
        kind = "folder" if description is None else description.name
        if not path:
            raise DataError(f"{kind} has no path: give it as {kind}:PATH")
        self.root = Path(path).expanduser().resolve()
        if not self.root.is_dir():
            raise DataError(f"{self.root} is not a folder: {kind}:PATH needs one with images and masks")
        self.spec = f"{kind}:{self.root}"
        if description is None:
            description = self._described()
        self.name = description.name or self.root.name
        if merge:
            file = Path(merge).expanduser().resolve()
            description = description.merged(read_merge(file), str(file))
            self.spec += f"{CLASSES_OPTION}{file}"
        if not is_printable(self.spec):  # which models and reports would refuse to name
            raise DataError(f"{self.spec} holds characters that cannot be printed; rename the folder or the file")
        self.description = description
        self.classes = description.names
        self.palette = description.colours
        self.ignore_index = description.ignore_index
        self.files = self._found()
        self.encoding = Encoding(description)

    def _described(self) -> Description:
        if not (self.root / FILE).is_file():
            raise DataError(f"{self.root / FILE} is missing: write it, or let `nasseg data init {self.root}` do it")
        return read_description(self.root / FILE)

    def _found(self) -> Files:
        """Find the layout: the description's, or the plain one, or the one that the folder seems to have."""
        layouts = self.description.layout
        files = first_that_fits(self.root, layouts or (PLAIN,), self.description.roots)
        if files is None and not layouts and (layout := find_layout(self.root)) is not None:
            files = first_that_fits(self.root, (layout,))
        if files is None:
            wanted = layouts[0] if layouts else PLAIN
            where = f"{wanted.images} with masks {wanted.shown_masks}" if wanted.images else f"the lists {wanted.list}"
            is_own = (self.root / FILE).is_file()
            fix = f"give {FILE} a layout, or see `nasseg data init`" if is_own else "give the folder that holds them"
            raise DataError(f"{self.root} holds no image with a mask: looked for {where}; {fix} (docs/data.md)")
        return files

    def splits(self) -> tuple[str, ...]:
        """Return the names of the splits of the layout."""
        return tuple(self.files.splits)

    def union(self, names: tuple[str, ...]) -> FolderSplit:
        """Every image once, in the order of the splits' names; files are opened when they are asked for."""
        found = [self.files.find(name) for name in names]
        items = {item.name: item for split in found for item in split.items}
        notes = tuple(f"{name}: {note}" for name, split in zip(names, found, strict=True) for note in split.notes)
        return FolderSplit("+".join(names), tuple(items.values()), self, notes)


class OfficialDataset:
    """What opens a public data set by its name: its description is built in, `NAME:PATH` says where it is."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def __doc__(self) -> str:  # type: ignore[override]
        """What the data set is, for lists of data sets."""
        return official(self.name).about

    def __call__(self, options: str) -> FolderDataset:
        """Open it in a folder; raises `DataError` as `FolderDataset` does."""
        return FolderDataset(options, official(self.name))


class FolderSplit(Split):
    """A split whose samples are read from files on access and checked as they are read."""

    def __init__(self, name: str, items: tuple[Item, ...], dataset: FolderDataset, notes: tuple[str, ...]) -> None:
        self.name = name
        self.classes = dataset.classes
        self.ignore_index = dataset.ignore_index
        self.notes = notes
        self.items = items
        self._root = dataset.root
        self._encoding = dataset.encoding
        self._is_instances = dataset.files.has_instances

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Sample:
        """Read a sample; raises `DataError` if a file cannot be read, sizes differ, or the mask holds other values."""
        item = self.items[index]
        image = read_image(item.image)
        mask = self._encoding.read(item.masks, is_instances=self._is_instances)
        if image.shape[1:] != mask.shape:
            wrong, right = (f"{height}x{width}" for height, width in (mask.shape, image.shape[1:]))
            is_turned = mask.shape == tuple(image.shape[:0:-1])
            hint = ""
            if is_turned and mask.shape == stored_size(item.image):
                hint = "; the image is turned by its EXIF orientation, and the mask is not: turn it, too"
            message = f"{item.masks[0]} is {wrong}, but must have the size of its image {item.image}, {right}{hint}"
            raise MaskSizeError(message, is_turned=is_turned)
        return Sample(item.name, image, torch.from_numpy(mask))

    def sample_name(self, index: int) -> str:
        """The name of a sample, without reading it."""
        return self.items[index].name

    def size(self, index: int) -> tuple[int, int]:
        """The size of an image, by its file's header."""
        return upright_size(self.items[index].image)

    @property
    def fingerprint(self) -> str:
        """A hash of what masks mean, and of the names, sizes and times of the files, none of which is opened."""
        digest = hashlib.sha256(repr((self.classes, self.ignore_index)).encode())
        if self._encoding.key is not None:
            digest.update(repr(self._encoding.key).encode())
        for item in self.items:
            for path in (item.image, *item.masks):
                status = path.stat()
                digest.update(repr((str(path.relative_to(self._root)), status.st_size, status.st_mtime_ns)).encode())
        return digest.hexdigest()
