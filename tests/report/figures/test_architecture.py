import re

import pytest
from matplotlib.figure import Figure

from baselines.deeplabv3plus import deeplabv3plus_mobilenetv2
from baselines.dense_prediction_cell import PUBLISHED
from baselines.unet import unet
from nasseg.graph import Builder
from nasseg.ops import (
    Activation,
    AveragePool,
    Concat,
    Conv,
    Dropout,
    InvertedResidual,
    Op,
    PyramidPool,
    Resize,
    SeparableConv,
    TransposedConv,
    atrous3x3,
    conv1x1,
    image_pool,
    logits1x1,
)
from nasseg.report.figures.architecture import FAMILIES, draw, operator_family, operator_text
from nasseg.report.figures.figure import to_svg
from search_spaces.dpc import DPC


@pytest.mark.parametrize(
    ("op", "text", "family"),
    [
        (SeparableConv(out_channels=8, rate=(6, 3)), "3×3 atrous 6×3", "atrous convolution"),
        (atrous3x3(8, 12), "3×3 atrous 12×12", "atrous convolution"),
        (SeparableConv(out_channels=8, kernel=5), "5×5 separable", "convolution"),
        (conv1x1(8), "1×1 conv", "1×1 convolution"),
        (Conv(out_channels=8, stride=2), "3×3 conv /2", "convolution"),
        (Conv(out_channels=8, groups=8), "3×3 grouped conv", "convolution"),
        (TransposedConv(out_channels=8), "2×2 transposed ×2", "convolution"),
        (PyramidPool(out_channels=8, grid=(2, 4)), "pool 2×4", "pooling"),
        (image_pool(8), "image pool", "pooling"),
        (AveragePool(kernel=3, stride=2), "3×3 average pool /2", "pooling"),
        (InvertedResidual(out_channels=8, stride=2), "3×3 inverted residual /2", "block"),
        (InvertedResidual(out_channels=8, rate=(2, 2)), "3×3 inverted residual, atrous 2×2", "atrous convolution"),
        (Concat(), "concat", "join"),
        (Activation(norm="batch"), "batch norm + relu", "other"),
        (Activation(), "relu", "other"),
        (Dropout(probability=0.1), "dropout 0.1", "other"),
        (Resize(), "resize", "resize"),
    ],
    ids=str,
)
def test_operators_have_their_text_and_family(op: Op, text: str, family: str) -> None:
    assert operator_text(op) == text
    assert operator_family(op) == family
    assert family in FAMILIES


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_a_cell_shows_its_operators_and_what_feeds_it() -> None:
    figure = draw(DPC().architecture(PUBLISHED, classes=19), "cell")
    titles = texts(figure)[::2]
    branches = ["3×3 atrous 1×6", "3×3 atrous 18×15", "3×3 atrous 6×3", "3×3 separable", "3×3 atrous 6×21"]
    assert sorted(titles) == sorted(["backbone.features.17", *branches, "concat", "dropout 0.1", "1×1 conv"])
    assert "branch0 · 256 ch" in texts(figure)
    # One from the backbone, four from branches, five into the concat, two after it.
    assert len(figure.axes[0].patches) - len(titles) == 1 + 4 + 5 + 2


def test_the_svg_has_the_operators_as_text() -> None:
    svg = to_svg(draw(DPC().architecture(PUBLISHED, classes=19), "cell"))
    assert re.search(r">3×3 atrous 18×15<", svg)
    assert re.search(r">concat<", svg)


def test_runs_of_equal_operators_are_one_box() -> None:
    shown = texts(draw(deeplabv3plus_mobilenetv2()))
    assert "3×3 inverted residual  × 3" in shown
    assert "backbone.features.8 – 10 · 64 ch" in shown
    assert "resize to image" in shown
    assert "resize to decoder.low_level" in shown


def test_a_network_with_skips_is_drawn_whole() -> None:
    shown = texts(draw(unet(num_classes=2)))
    assert shown.count("2×2 max pool /2") == 4
    assert shown.count("2×2 transposed ×2") == 4
    assert shown.count("3×3 conv  × 2") == 9


def test_what_only_training_needs_is_dashed() -> None:
    g = Builder("tiny")
    image = g.input()
    x = g.add("backbone.stem", Conv(out_channels=4), image)
    side = g.add("auxiliary.logits", logits1x1(2), x)
    architecture = g.build(g.add("head.logits", logits1x1(2), x), training_outputs=(side,))
    boxes = [patch for patch in draw(architecture).axes[0].patches if patch.get_zorder() == 2]
    assert sorted(box.get_linestyle() for box in boxes) == ["-", "-", "-", "--"]
    assert "training only" in [text.get_text() for text in draw(architecture).axes[0].get_legend().get_texts()]


def test_an_unknown_stage_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="has nothing named 'neck'; its stages: backbone, cell, decoder, head"):
        draw(deeplabv3plus_mobilenetv2(), "neck")
