import io

import numpy as np
import pytest
import torch
from PIL import Image

from nasseg.report.figures.figure import to_pixels, to_svg
from nasseg.report.figures.pictures import Example, Palette, colour_mask, legend, overlay, panel

PALETTE = Palette(("road", "sky"), ((255, 0, 0), (0, 0, 255)), ignore_index=255)
MASK = torch.tensor([[0, 1], [1, 255]], dtype=torch.uint8)
IMAGE = torch.full((3, 2, 2), 100, dtype=torch.uint8)


def test_a_colour_mask_shows_colours_and_keeps_the_classes() -> None:
    file = io.BytesIO()
    colour_mask(MASK, PALETTE).save(file, "png")
    picture = Image.open(file)
    assert np.asarray(picture).tolist() == MASK.tolist()
    colours = np.asarray(picture.convert("RGB")).tolist()
    assert colours == [[[255, 0, 0], [0, 0, 255]], [[0, 0, 255], [0, 0, 0]]]


def test_a_mask_may_be_of_any_integers() -> None:
    assert np.asarray(colour_mask(MASK.long(), PALETTE)).tolist() == MASK.tolist()


def test_an_ignored_class_of_the_palette_is_black() -> None:
    palette = Palette(("road", "void"), ((255, 0, 0), (9, 9, 9)), ignore_index=1)
    assert np.asarray(colour_mask(torch.tensor([[0, 1]]), palette).convert("RGB")).tolist() == [
        [[255, 0, 0], [0, 0, 0]]
    ]


def test_an_overlay_mixes_colours_and_leaves_ignored_pixels_alone() -> None:
    pixels = np.asarray(overlay(IMAGE, MASK, PALETTE))
    mixed = 100 + 0.55 * (np.array([255, 0, 0]) - 100)
    assert np.abs(pixels[0, 0] - mixed).max() <= 1
    assert pixels[1, 1].tolist() == [100, 100, 100]


def test_a_panel_has_truth_only_where_it_is_known() -> None:
    known, unknown = Example("a", IMAGE, MASK, truth=MASK), Example("b", IMAGE, MASK)
    figure = panel([known, unknown], PALETTE)
    assert [axes.get_title() for axes in figure.axes] == ["image", "truth", "prediction", "", "", ""]
    assert [len(axes.images) for axes in figure.axes] == [1, 1, 1, 1, 0, 1]
    figure = panel([unknown], PALETTE)
    assert [axes.get_title() for axes in figure.axes] == ["image", "prediction"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["road", "sky"]


def test_a_panel_shows_the_colours() -> None:
    pixels = to_pixels(panel([Example("a", IMAGE, torch.zeros(2, 2), truth=torch.ones(2, 2))], PALETTE))
    found = {tuple(colour) for colour in np.unique(pixels.reshape(-1, 3), axis=0).tolist()}
    assert {(255, 0, 0), (0, 0, 255), (100, 100, 100)} <= found


def test_a_panel_without_examples_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        panel([], PALETTE)


def test_classes_and_colours_go_together() -> None:
    with pytest.raises(ValueError, match="2 classes and 1 colours"):
        Palette(("road", "sky"), ((1, 2, 3),), 255)


def test_names_with_dollar_signs_are_shown_as_they_are() -> None:
    colours = ((255, 0, 0), (0, 0, 255))
    svg = to_svg(legend(Palette(("cost $x_$", "US$"), colours, ignore_index=255)))
    assert "cost $x_$" in svg
    assert "US$" in svg
