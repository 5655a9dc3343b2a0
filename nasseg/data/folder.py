"""Images and masks in a folder.

dataset.json                          {"classes": [...], "palette": [[r, g, b], ...], "ignore_index": 255}
images/SPLIT/NAME.jpg | .jpeg | .png
masks/SPLIT/NAME.png                  one class index per pixel, grey or palette
splits/SPLIT.txt                      optional: lines FOLDER/NAME that make further splits of the images above
"""

import hashlib
import struct
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from reprlib import repr as short_repr
from typing import Annotated, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from pydantic import BaseModel, Field, ValidationError, model_validator
from torch import Tensor

from nasseg.data.dataset import DataError, Dataset, Sample, Split
from nasseg.errors import one_line
from nasseg.foreign import MAX_IMAGE_PIXELS, MAX_NAME, MAX_SIDE, MAX_TEXT_BYTES, Line, read_bytes, read_json

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")
"""That Pillow may find in an image file, whatever its name: others run further programs, such as Ghostscript."""
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # sizes are checked by `check_image_size`
Level = Annotated[int, Field(ge=0, le=255)]


class _Description(BaseModel):
    """The content of `dataset.json`."""

    name: Line = ""
    classes: tuple[Line, ...] = Field(min_length=1, max_length=255)
    palette: tuple[tuple[Level, Level, Level], ...] = Field(max_length=255)
    ignore_index: Level

    @model_validator(mode="after")
    def _agree(self) -> "_Description":
        colours, classes, ignored = len(self.palette), len(self.classes), self.ignore_index
        if colours != classes:
            raise ValueError(f"palette has {colours} colours, but must have one for each of the {classes} classes")
        if ignored < classes:
            raise ValueError(f"ignore_index is {ignored}, but must not be a class index (0 to {classes - 1}): use 255")
        return self


class _Item(NamedTuple):
    name: str
    image: Path
    mask: Path


class FolderDataset(Dataset):
    """Images and masks in a folder, laid out as at the top of this module."""

    def __init__(self, path: str | Path) -> None:
        """Read `dataset.json`; raises `DataError` if it or the folder is missing or invalid."""
        if not str(path):
            raise DataError("folder has no path: give it as folder:PATH")
        self.root = Path(path).expanduser().resolve()
        if not self.root.is_dir():
            raise DataError(f"{self.root} is not a folder: folder:PATH needs one with images/, masks/ and dataset.json")
        description = _read_description(self.root / "dataset.json")
        self.name = description.name or self.root.name
        self.spec = f"folder:{self.root}"
        self.classes = description.classes
        self.palette = description.palette
        self.ignore_index = description.ignore_index

    def splits(self) -> tuple[str, ...]:
        """Return the names of the folders below `images` and of the text files in `splits`."""
        folders = {path.name for path in (self.root / "images").glob("*/")}
        return tuple(sorted(folders | {path.stem for path in (self.root / "splits").glob("*.txt")}))

    def union(self, names: tuple[str, ...]) -> "FolderSplit":
        """Every image once, in the order of the splits' names; files are opened when they are asked for."""
        items = {item.name: item for name in names for item in self._items(name)}
        return FolderSplit("+".join(names), tuple(items.values()), self)

    def _items(self, split: str) -> list[_Item]:
        listing = self.root / "splits" / f"{split}.txt"
        if not listing.is_file():
            return list(self._pairs(split).values())
        pairs: dict[str, dict[str, _Item]] = {}
        items = []
        for number, line in enumerate(_read_lines(listing), start=1):
            name = line.strip()
            if not name:
                continue
            folder = name.rpartition("/")[0]
            if folder.startswith("/") or ".." in folder.split("/"):
                raise DataError(f"{listing} line {number}: {short_repr(name)} leads out of {self.root / 'images'}")
            if folder not in pairs:
                pairs[folder] = self._pairs(folder) if folder and len(folder) <= MAX_NAME else {}
            if name not in pairs[folder]:
                where = f"{listing} line {number}: {short_repr(name)}"
                raise DataError(f"{where} is not an image in {self.root / 'images'}; give FOLDER/NAME without suffix")
            items.append(pairs[folder][name])
        return items

    def _pairs(self, folder: str) -> dict[str, _Item]:
        """Pair the images of a folder with their masks, by FOLDER/NAME in order of name."""
        images: dict[str, Path] = {}
        for path in sorted((self.root / "images" / folder).glob("*")):
            if path.suffix.lower() in IMAGE_SUFFIXES:
                if path.stem in images:
                    raise DataError(f"{path} and {images[path.stem].name} share one mask: give each image its own name")
                images[path.stem] = path
        masks = {path.stem: path for path in sorted((self.root / "masks" / folder).glob("*.png"))}
        for stem, path in images.items():
            if stem not in masks:
                raise DataError(f"{path} has no mask: {self.root / 'masks' / folder / stem}.png is missing")
        for stem, path in masks.items():
            if stem not in images:
                raise DataError(f"{path} has no image: {self.root / 'images' / folder / stem}.jpg or .png is missing")
        return {f"{folder}/{stem}": _Item(f"{folder}/{stem}", path, masks[stem]) for stem, path in images.items()}


class FolderSplit(Split):
    """A split whose samples are read from files on access and checked as they are read."""

    def __init__(self, name: str, items: tuple[_Item, ...], dataset: FolderDataset) -> None:
        self.name = name
        self.classes = dataset.classes
        self.ignore_index = dataset.ignore_index
        self._root = dataset.root
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Sample:
        """Read a sample; raises `DataError` if a file cannot be read, sizes differ, or the mask holds other indices."""
        item = self._items[index]
        image = read_image(item.image)
        mask = _read(item.mask, None)
        if mask.ndim != 2 or mask.dtype not in (np.uint8, np.bool_):
            raise DataError(
                f"{item.mask} is a colour or 16-bit image, but must hold a class index (0 to 255) per pixel"
            )
        if image.shape[1:] != mask.shape:
            sizes = [f"{height}x{width}" for height, width in (mask.shape, image.shape[1:])]
            raise DataError(f"{item.mask} is {sizes[0]}, but must have the size of its image {item.image}, {sizes[1]}")
        used = np.flatnonzero(np.bincount(mask.ravel(), minlength=256))
        wrong = used[(used >= len(self.classes)) & (used != self.ignore_index)]
        if wrong.size:
            allowed = f"0 to {len(self.classes) - 1}, or {self.ignore_index} to ignore a pixel"
            raise DataError(f"{item.mask} holds class index {wrong[0]}, but must hold {allowed}")
        return Sample(item.name, image, torch.from_numpy(mask.astype(np.uint8)))

    @property
    def fingerprint(self) -> str:
        """A hash of the names, sizes and times of the files, none of which is opened."""
        digest = hashlib.sha256(repr((self.classes, self.ignore_index)).encode())
        for item in self._items:
            for path in (item.image, item.mask):
                status = path.stat()
                digest.update(repr((str(path.relative_to(self._root)), status.st_size, status.st_mtime_ns)).encode())
        return digest.hexdigest()

    def check(self) -> None:
        """Read every file, several at once; raises the `DataError` of the first bad sample."""
        with ThreadPoolExecutor() as pool:
            for _ in pool.map(lambda index: self[index] and None, range(len(self))):
                pass


def read_image(path: Path) -> Tensor:
    """Read an image, uint8 (3, H, W) in RGB, upright as its EXIF says; raises `DataError` if it cannot be read."""
    return torch.from_numpy(_read(path, "RGB")).permute(2, 0, 1).contiguous()


def _read(path: Path, mode: str | None) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Read the pixels of an image file, (H, W) or (H, W, channels)."""
    if not path.is_file():
        raise DataError(f"{path} is no regular file, but must be an image")
    try:
        with Image.open(path, formats=FORMATS) as file:
            check_image_size(path, *file.size)
            return np.array(ImageOps.exif_transpose(file).convert(mode) if mode else file)
    except UnidentifiedImageError:
        raise DataError(f"{path} is not a readable image ({', '.join(FORMATS)})") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(f"{path} has over {MAX_IMAGE_PIXELS:,} pixels, the most that are read") from None
    except DataError:
        raise
    except MemoryError:
        raise DataError(f"{path} does not fit into memory; make it smaller") from None
    except (OSError, SyntaxError, ValueError, ArithmeticError, LookupError, struct.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def check_image_size(path: Path, width: int, height: int) -> None:
    """Raise `DataError` for an image too large to be decoded, by what its header says."""
    if max(width, height) > MAX_SIDE or width * height > MAX_IMAGE_PIXELS:
        raise DataError(
            f"{path} is {height}x{width}, but must have at most {MAX_IMAGE_PIXELS:,} pixels, and {MAX_SIDE:,} per side"
        )


def _read_lines(path: Path) -> list[str]:
    try:
        return read_bytes(path, MAX_TEXT_BYTES, "list FOLDER/NAME lines").decode().splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: byte {error.start}") from None
    except ValueError as error:
        raise DataError(str(error)) from None


def _read_description(path: Path) -> _Description:
    content = '{"classes": [...], "palette": [[r, g, b], ...], "ignore_index": 255}'
    if not path.exists():
        raise DataError(f"{path} is missing: it must hold {content}")
    try:
        return _Description.model_validate(read_json(path, f"it must hold {content}"))
    except ValidationError as error:
        raise DataError(one_line(error, str(path))) from error
    except ValueError as error:
        raise DataError(str(error)) from None
