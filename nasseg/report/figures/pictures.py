"""Masks as pictures: colour masks, overlays, and panels of image, truth and prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image
from torch import Tensor

from nasseg.report.figures.figure import new_figure

OPACITY = 0.55
BLACK = (0, 0, 0)


@dataclass(frozen=True)
class Palette:
    """The classes' names and RGB colours; pixels of `ignore_index` are black."""

    classes: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    ignore_index: int

    def __post_init__(self) -> None:
        if len(self.classes) != len(self.colours):
            raise ValueError(f"there are {len(self.classes)} classes and {len(self.colours)} colours; give one each")


@dataclass(frozen=True)
class Example:
    """An image, uint8 (3, H, W) in RGB, with its prediction and, if known, its truth, (H, W) of class indices."""

    name: str
    image: Tensor
    prediction: Tensor
    truth: Tensor | None = None


def colour_mask(mask: Tensor, palette: Palette) -> Image.Image:
    """Colour (H, W) class indices as a palette image, from which they can be read back, as PASCAL VOC's masks."""
    picture = Image.fromarray(mask.cpu().numpy().astype(np.uint8))
    colours = [palette.colours[i] if i < len(palette.colours) else BLACK for i in range(256)]
    colours[palette.ignore_index] = BLACK
    picture.putpalette(list(chain.from_iterable(colours)))
    return picture


def overlay(image: Tensor, mask: Tensor, palette: Palette) -> Image.Image:
    """Lay the classes' colours over an image, uint8 (3, H, W); ignored pixels show it unchanged."""
    below = _picture(image)
    blended = Image.blend(below, colour_mask(mask, palette).convert("RGB"), OPACITY)
    labelled = (mask != palette.ignore_index).cpu().numpy().astype(np.uint8) * 255
    return Image.composite(blended, below, Image.fromarray(labelled))


def panel(examples: Sequence[Example], palette: Palette, column_inches: float = 3.2) -> Figure:
    """Draw image, truth (if any is known) and prediction side by side, one example per row.

    Without truth the prediction is laid over the image. A legend names the classes that occur.
    """
    if not examples:
        raise ValueError("there are no examples, but a panel must have at least one")
    with_truth = any(example.truth is not None for example in examples)
    titles = ("image", "truth", "prediction") if with_truth else ("image", "prediction")
    heights = [column_inches * e.image.shape[-2] / e.image.shape[-1] for e in examples]
    shown = _shown_classes(examples, palette)
    gap, title_inches, legend_row = 0.06, 0.26, 0.2
    width = len(titles) * (column_inches + gap) + gap
    columns = max(1, min(len(shown), int(width / 1.3)))
    legend_inches = legend_row * -(-len(shown) // columns) + 0.14
    height = title_inches + sum(heights) + gap * len(heights) + legend_inches
    figure = new_figure(width, height)

    top = height - title_inches
    for row, (example, row_inches) in enumerate(zip(examples, heights, strict=True)):
        pictures: list[Image.Image | None] = [_picture(example.image)]
        if with_truth:
            pictures.append(None if example.truth is None else colour_mask(example.truth, palette).convert("RGB"))
            pictures.append(colour_mask(example.prediction, palette).convert("RGB"))
        else:
            pictures.append(overlay(example.image, example.prediction, palette))
        for column, picture in enumerate(pictures):
            left = gap + column * (column_inches + gap)
            box = (left / width, (top - row_inches) / height, column_inches / width, row_inches / height)
            axes = figure.add_axes(box)
            axes.set_axis_off()
            if picture is not None:
                axes.imshow(np.asarray(picture), interpolation="none", aspect="auto")
            if row == 0:
                axes.set_title(titles[column], fontsize=9, pad=4)
        top -= row_inches + gap
    patches = [Patch(facecolor=rgb(palette.colours[i]), edgecolor="#555555", linewidth=0.5) for i in shown]
    names = [palette.classes[i] for i in shown]
    style: dict[str, Any] = {"frameon": False, "fontsize": 7.5, "handlelength": 1.2, "handleheight": 0.9}
    figure.legend(patches, names, loc="lower center", ncols=columns, **style)
    return figure


def legend(palette: Palette, shown: Sequence[int] | None = None) -> Figure:
    """Draw the names of the classes beside their colours, of those `shown`, or of all."""
    indices = range(len(palette.classes)) if shown is None else shown
    patches = [Patch(facecolor=rgb(palette.colours[i]), edgecolor="#555555", linewidth=0.5) for i in indices]
    names = [palette.classes[i] for i in indices]
    figure = new_figure(0.7 + 0.085 * max(map(len, names), default=0), 0.2 + 0.19 * len(names))
    figure.legend(patches, names, loc="center", frameon=False, fontsize=8, handlelength=1.2, handleheight=0.9)
    return figure


def _shown_classes(examples: Sequence[Example], palette: Palette) -> list[int]:
    masks = [mask for e in examples for mask in (e.truth, e.prediction) if mask is not None]
    found = set(chain.from_iterable(np.unique(mask.cpu().numpy()).tolist() for mask in masks))
    return [i for i in range(len(palette.classes)) if i in found and i != palette.ignore_index]


def rgb(colour: tuple[int, int, int]) -> tuple[float, float, float]:
    """Return a colour as matplotlib takes it."""
    red, green, blue = colour
    return red / 255, green / 255, blue / 255


def _picture(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).cpu().numpy())
