"""Every search space under the suite for spaces. A new one is one line in `SPACES`."""

from typing import Any

import optuna
import pytest

from nasseg.space import Space
from nasseg.testing import SpaceConformance
from nasseg.testing.spaces import samples
from search_spaces.auto_deeplab import AutoDeepLab
from search_spaces.dpc import DPC

SPACES: dict[str, Space[Any]] = {
    "dpc": DPC(),
    "dpc-small": DPC(branches=2, filters=8, output_stride=8),
    "dpc-decoder": DPC(branches=3, filters=8, decoder=True),
    "auto_deeplab": AutoDeepLab(layers=4, blocks=2, filters=2, head_filters=8),
    "auto_deeplab-search": AutoDeepLab(layers=3, blocks=3, filters=2, stem_filters=6, head_filters=8, decoder=False),
}

every_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)


@every_space
class TestSpaces(SpaceConformance):
    pass


@every_space
def test_they_are_large(space: Space[Any]) -> None:
    assert space.size() > 1000


@every_space
def test_suggestions_describe_choices_both_ways(space: Space[Any]) -> None:
    for choice in samples(space, 20):
        assert space.suggest(optuna.trial.FixedTrial(dict(space.params(choice)))) == choice
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(10):
        trial = study.ask()
        assert dict(space.params(space.suggest(trial))) == trial.params
