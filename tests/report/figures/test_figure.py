from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nasseg.report.figures.figure import new_figure, save, to_pixels, to_svg


def test_pixels_have_the_figures_size_and_colour() -> None:
    figure = new_figure(2, 4.6)
    figure.set_facecolor("#ff0000")
    pixels = to_pixels(figure)
    assert pixels.dtype == np.uint8
    assert pixels.shape in ((460, 200, 3), (459, 200, 3))  # 4.6 inches at 100 dots, as floats are
    assert pixels[0, 0].tolist() == [255, 0, 0]


def test_files_are_png_or_svg(tmp_path: Path) -> None:
    figure = new_figure(1, 1)
    save(figure, tmp_path / "a.png")
    save(figure, tmp_path / "a.svg")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (160, 160)
    assert (tmp_path / "a.svg").read_text().startswith("<svg")
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(ValueError, match=r"'\.jpg', but must end in \.png or \.svg"):
        save(figure, tmp_path / "a.jpg")


def test_equal_figures_give_equal_text() -> None:
    def svg() -> str:
        figure = new_figure(1, 1)
        figure.text(0.5, 0.5, "atrous")
        return to_svg(figure)

    assert svg() == svg()
    assert ">atrous<" in svg()
