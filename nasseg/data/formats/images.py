"""Image files as arrays: photographs in RGB and the right way up, masks as they are stored."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TiffImageFile
from torch import Tensor

from nasseg.data.dataset import DataError
from nasseg.data.formats import matlab
from nasseg.foreign import MAX_IMAGE_PIXELS, MAX_SIDE

ORIENTATION = 0x0112
"""The EXIF tag that says how a camera was held."""
TURNED = range(5, 9)
"""Orientations of which width and height are exchanged."""
LOSSY = ("JPEG", "MPO")
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM")
"""That Pillow may find in an image file, whatever its name: others run further programs, such as Ghostscript."""
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # sizes are checked by `check_image_size`


class LossyMaskError(DataError):
    """A mask in a format that changes its values."""


def read_image(path: Path) -> Tensor:
    """Read an image, uint8 (3, H, W) in RGB, turned as its EXIF orientation says; raises `DataError` if it cannot be.

    16 bits a channel are scaled to 8.
    """
    with _opened(path) as file:
        if file.mode.startswith("I"):
            grey = _eight_bits(np.asarray(ImageOps.exif_transpose(file)), path)
            pixels = np.broadcast_to(grey[..., None], (*grey.shape, 3))
        elif file.mode == "F":
            raise DataError(f"{path} holds floating-point numbers, but must have 8 or 16 bits a channel")
        else:
            upright = ImageOps.exif_transpose(file)
            if "transparency" in upright.info:
                upright = upright.convert("RGBA")
            pixels = np.asarray(upright.convert("RGB"))
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def stored_size(path: Path) -> tuple[int, int]:
    """Height and width of an image file before it is turned as its EXIF orientation says."""
    with _opened(path) as file:
        return _stored_size(file)


def _stored_size(file: Image.Image) -> tuple[int, int]:
    if isinstance(file, TiffImageFile):  # which Pillow turns itself, by its version as it is opened or as it is read
        return int(file.tag_v2[IMAGELENGTH]), int(file.tag_v2[IMAGEWIDTH])
    return file.height, file.width


def upright_size(path: Path) -> tuple[int, int]:
    """Height and width of an image file, turned as its EXIF orientation says, by its header."""
    with _opened(path) as file:
        height, width = _stored_size(file)
        return (width, height) if file.getexif().get(ORIENTATION, 1) in TURNED else (height, width)


def brightest_of_16_bits(path: Path) -> int | None:
    """The highest level of an image with 16 bits a channel; `None` for others, and for those that cannot be read."""
    try:
        with _opened(path) as file:
            return int(np.asarray(file).max()) if file.mode.startswith("I") else None
    except DataError:
        return None


class MaskFile:
    """The pixels of a mask as they are stored: `indices` (H, W), or `colours` (H, W, 3), or both for a palette."""

    def __init__(self, path: Path) -> None:
        """Read the file; raises `DataError` if it cannot be read or is no mask."""
        self.path = path
        self.has_palette = False
        self.indices: NDArray[Any] | None = None
        self.colours: NDArray[np.uint8] | None = None
        if path.suffix.lower() == matlab.ENDING:
            self.indices = matlab.read_segmentation(path)
            return
        with _opened(path) as file:
            if file.format in LOSSY:
                raise LossyMaskError(
                    f"{path} is a JPEG, whose compression mixes neighbouring classes; make it anew as PNG"
                )
            file = ImageOps.exif_transpose(file)
            if file.mode == "F":
                raise DataError(f"{path} holds floating-point numbers, but a mask must hold integers or colours")
            self.has_palette = file.mode in ("P", "PA")
            is_grey = file.mode in ("1", "L", "LA", "P", "PA") or file.mode.startswith("I")
            if is_grey:
                pixels = np.asarray(file)
                self.indices = pixels[..., 0] if pixels.ndim == 3 else pixels
                if self.indices.dtype == np.bool_:
                    self.indices = self.indices.astype(np.uint8)
            if self.has_palette or not is_grey:
                self.colours = np.asarray(file.convert("RGB"))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        pixels = self.indices if self.indices is not None else self.colours
        assert pixels is not None
        return pixels.shape[0], pixels.shape[1]


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    if not path.is_file():
        raise DataError(f"{path} is no regular file, but must be an image")
    try:
        with Image.open(path, formats=FORMATS) as file:
            check_image_size(path, *file.size)
            yield file
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


def _eight_bits(grey: NDArray[Any], path: Path) -> NDArray[np.uint8]:
    """Scale 16 bits to 8."""
    if grey.size and (grey.min() < 0 or grey.max() > 65535):
        raise DataError(f"{path} holds levels {grey.min()} to {grey.max()}, but must have 8 or 16 bits a channel")
    return ((grey.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
