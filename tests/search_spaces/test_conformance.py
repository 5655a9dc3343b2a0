"""Every search space under the suite for spaces. A new one is one line in `SPACES`."""

import random
from typing import Any

import optuna
import pytest

from nasseg.planning.samplers.optuna import OptunaSampler, suggestions
from nasseg.space import Space
from nasseg.testing import SpaceConformance
from search_spaces.auto_deeplab import AutoDeepLab
from search_spaces.dpc import DPC
from search_spaces.encoder_decoder import EncoderDecoder

SPACES: dict[str, Space[Any]] = {
    "dpc": DPC(),
    "dpc-small": DPC(branches=2, filters=8, output_stride=8),
    "dpc-decoder": DPC(branches=3, filters=8, decoder=True),
    "auto_deeplab": AutoDeepLab(layers=4, blocks=2, filters=2, head_filters=8),
    "auto_deeplab-search": AutoDeepLab(layers=3, blocks=3, filters=2, stem_filters=6, head_filters=8, decoder=False),
    "encoder_decoder": EncoderDecoder(),
    "encoder_decoder-backbones": EncoderDecoder(backbones=("resnet18", "efficientnet_lite0")),
}

every_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)


@every_space
class TestSpaces(SpaceConformance):
    pass


@every_space
def test_those_that_are_counted_are_large(space: Space[Any]) -> None:
    size = space.size()
    assert size is None or size > 1000


@every_space
def test_optuna_proposes_points_and_knows_them_by_their_parameters(space: Space[Any]) -> None:
    sampler = OptunaSampler(space, lambda seed: optuna.samplers.RandomSampler(seed=seed))
    for seed in range(10):
        choice = sampler.propose([], random.Random(seed))
        assert space.parse(choice.model_dump(mode="json")) == choice
        params, distributions = suggestions(space, choice)
        assert params.keys() == distributions.keys()
        trial = optuna.create_trial(params=params, distributions=distributions, value=0.0)
        assert trial.params == params
