"""How data sets lie in folders: layouts find images with masks, encodings turn masks into class indices."""

from nasseg.data.formats.description import Description, read_description
from nasseg.data.formats.detect import find_layout
from nasseg.data.formats.encoding import Encoding, UnknownValueError
from nasseg.data.formats.layout import Files, Layout, first_that_fits
from nasseg.data.formats.lists import Item

__all__ = [
    "Description",
    "Encoding",
    "Files",
    "Item",
    "Layout",
    "UnknownValueError",
    "find_layout",
    "first_that_fits",
    "read_description",
]
