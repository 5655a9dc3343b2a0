"""Matplotlib figures without global state, as files, as SVG text and as pixels."""

import io
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray
from PIL import Image

from nasseg.graph import write_atomically

FORMATS = (".png", ".svg")
PNG_DPI = 160


def new_figure(width_inches: float, height_inches: float) -> Figure:
    """Make an empty white figure that matplotlib's global state does not know."""
    figure = Figure(figsize=(width_inches, height_inches), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: str | Path) -> None:
    """Write the figure as PNG or SVG, by the suffix of `path`; any other suffix raises `ValueError`."""
    path = Path(path)
    check_suffix(path)
    if path.suffix == ".svg":
        write_atomically(path, to_svg(figure))
        return
    buffer = io.BytesIO()
    _without_formulas(figure).savefig(buffer, format="png", dpi=PNG_DPI)
    write_atomically(path, buffer.getvalue())


def check_suffix(path: Path) -> None:
    """Raise `ValueError` if a figure cannot be written to a file of that name."""
    if path.suffix not in FORMATS:
        raise ValueError(f"{path} has the suffix {path.suffix!r}, but must end in {' or '.join(FORMATS)}")


def to_svg(figure: Figure) -> str:
    """Render the figure as one `<svg>` element with text as text; equal figures give equal strings."""
    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "nasseg"}):
        _without_formulas(figure).savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :]


def to_pixels(figure: Figure) -> NDArray[np.uint8]:
    """Render the figure as RGB, (H, W, 3)."""
    buffer = io.BytesIO()
    _without_formulas(figure).savefig(buffer, format="png")
    return np.asarray(Image.open(buffer).convert("RGB"))


def _without_formulas(figure: Figure) -> Figure:
    """Show texts as they are: classes and files may have dollar signs in their names, which would set formulas."""
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    return figure
