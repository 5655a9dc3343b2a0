"""The encoder–decoder space: the handcrafted heads are points of it, and its points span a wide range of costs."""

import random
from itertools import pairwise

import pytest

from baselines.deeplabv3plus import deeplabv3plus_mobilenetv2
from baselines.dense_prediction_cell import PUBLISHED
from baselines.encoder_decoder import DESIGNS, encoder_decoder
from nasseg.plugins import space as find_space
from search_spaces.dpc import DPC
from search_spaces.encoder_decoder import DIAL, EncoderDecoder

SIZE = (180, 240)


def test_the_handcrafted_heads_are_points_and_deeplab_is_the_one_to_beat() -> None:
    space = EncoderDecoder(backbones=("efficientnet_lite0",))
    references = space.references()
    assert references.keys() == DESIGNS.keys()
    assert next(iter(references)) == "deeplabv3plus"
    for name, choice in references.items():
        assert space.parse(choice.model_dump(mode="json")) == choice
        design = DESIGNS[name].model_copy(update={"backbone": "efficientnet_lite0"})
        assert space.architecture(choice, 11).key == encoder_decoder(name, design, 11).key
    assert EncoderDecoder().architecture(EncoderDecoder().references()["deeplabv3plus"], 19).key == (
        deeplabv3plus_mobilenetv2(19).key
    )


def test_the_dial_has_the_published_width_and_rises_in_steps_of_four_percent() -> None:
    assert 1.0 in DIAL
    assert (DIAL[0], DIAL[-1]) == (0.103, 1.948)
    assert all(1.03 < high / low < 1.05 for low, high in pairwise(DIAL))


def test_points_at_one_size_span_more_than_a_factor_of_ten() -> None:
    space, rng = EncoderDecoder(), random.Random(0)
    madds = sorted(space.architecture(space.sample(rng), 11).describe(SIZE).madds for _ in range(40))
    assert madds[-3] > 10 * madds[2]


def test_backbones_are_joined_by_plus_signs() -> None:
    space = find_space("encoder_decoder:backbones=mobilenetv2+resnet18")
    assert {space.sample(random.Random(seed)).backbone for seed in range(20)} == {"mobilenetv2", "resnet18"}
    with pytest.raises(ValueError, match="backbones"):
        find_space("encoder_decoder:backbones=mobilenetv9")


def test_any_dense_prediction_cell_is_a_context() -> None:
    space = EncoderDecoder()
    designs = [space.sample(random.Random(seed)) for seed in range(300)]
    cells = [design for design in designs if design.context == "dense_prediction_cell"]
    assert len({design.cell for design in cells}) == len(cells) > 10
    assert all(design.cell is None for design in designs if design not in cells)
    design = space.canonical(cells[0])
    assert design.cell == DPC().canonical(cells[0].cell)
    stage = space.architecture(design, 11).describe(SIZE)
    published = space.parse({**design.model_dump(mode="json"), "cell": None})
    assert published.cell == PUBLISHED
    assert space.architecture(published, 11).describe(SIZE) != stage
    with pytest.raises(ValueError, match="cell is given, but context is not dense_prediction_cell"):
        space.parse({**design.model_dump(mode="json"), "context": "aspp"})
