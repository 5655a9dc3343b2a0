"""The contract of every search space. A new one is one line in `SPACES`."""

import json
import random
from itertools import islice
from typing import Any

import optuna
import pytest
import torch

from examples.own_space import TwoRates
from nasseg.planning.samplers.optuna import OptunaSampler, suggestions
from nasseg.space import Choice, Space
from search_spaces.auto_deeplab import AutoDeepLab
from search_spaces.dpc import DPC

SPACES: dict[str, Space[Any]] = {
    "dpc": DPC(),
    "dpc-small": DPC(branches=2, filters=8, output_stride=8),
    "dpc-decoder": DPC(branches=3, filters=8, decoder=True),
    "auto_deeplab": AutoDeepLab(layers=4, blocks=2, filters=2, head_filters=8),
    "auto_deeplab-search": AutoDeepLab(layers=3, blocks=3, filters=2, stem_filters=6, head_filters=8, decoder=False),
    "example": TwoRates(),
}

every_space = pytest.mark.parametrize("space", [pytest.param(space, id=name) for name, space in SPACES.items()])


def samples(space: Space[Any], count: int) -> list[Choice]:
    rng = random.Random(0)
    return [space.sample(rng) for _ in range(count)]


@every_space
def test_a_seed_gives_the_same_samples_and_they_differ(space: Space[Any]) -> None:
    assert samples(space, 20) == samples(space, 20)
    assert len(set(samples(space, 20))) >= 15
    size = space.size()
    assert size is None or size >= 20


@every_space
def test_choices_survive_json_and_are_checked(space: Space[Any]) -> None:
    for choice in [*samples(space, 20), *space.references().values()]:
        assert space.parse(json.loads(choice.model_dump_json())) == choice
    with pytest.raises(ValueError, match=r"^choice: ") as caught:
        space.parse({"nonsense": 1})
    assert "\n" not in str(caught.value)


@every_space
def test_decisions_describe_choices_both_ways(space: Space[Any]) -> None:
    for choice in [*samples(space, 20), *space.references().values()]:
        positions = iter([position for _, position in space.made(choice)])
        assert space.choose(lambda _, positions=positions: next(positions)) == choice


@every_space
def test_each_parameter_has_the_same_options_at_every_point(space: Space[Any]) -> None:
    """Otherwise samplers learn one thing from several: `given` tells them apart."""
    found: dict[str, set[object]] = {}
    for choice in samples(space, 200):
        for decision, _ in space.made(choice):
            found.setdefault(decision.parameter, set()).add((decision.options, decision.ordered))
    assert [name for name, options in found.items() if len(options) > 1] == []


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


@every_space
def test_neighbours_are_distinct_members_and_mutual(space: Space[Any]) -> None:
    for choice in samples(space, 2):
        neighbours = list(space.neighbours(choice))
        assert choice not in neighbours
        assert len(set(neighbours)) == len(neighbours)
        for neighbour in random.Random(1).sample(neighbours, 10):
            assert space.parse(neighbour.model_dump(mode="json")) == neighbour
            assert choice in set(space.neighbours(neighbour))


@every_space
def test_the_canonical_form_is_a_fixed_member(space: Space[Any]) -> None:
    for choice in samples(space, 50):
        canonical = space.canonical(choice)
        assert space.canonical(canonical) == canonical
        assert space.parse(canonical.model_dump(mode="json")) == canonical


@every_space
def test_samples_share_the_prefix_and_nothing_but_it(space: Space[Any]) -> None:
    architectures = [space.architecture(choice, classes=3) for choice in samples(space, 5)]
    assert len({architecture.key for architecture in architectures}) == 5
    if space.shared_stage is not None:
        assert len({architecture.cut(space.shared_stage)[0].key for architecture in architectures}) == 1


@every_space
@pytest.mark.parametrize("size", [(64, 64), (65, 49)], ids=str)
@torch.no_grad()
def test_networks_run_at_any_size(space: Space[Any], size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    for choice in islice(space.references().values(), 1):
        network = space.architecture(choice, classes=3).network()
        assert network.train()(torch.randn(1, 3, *size)).shape == (1, 3, *size)
        assert network.eval()(torch.randn(1, 3, *size)).shape == (1, 3, *size)
    for choice in samples(space, 3):
        description = space.architecture(choice, classes=3).describe(size)
        assert description.nodes[-1].shape == (3, *size)


@every_space
def test_every_point_can_be_drawn(space: Space[Any]) -> None:
    for choice in samples(space, 20):
        names = [f"{node.name}." for node in space.architecture(choice, classes=3).nodes]
        assert space.drawn_place is None or any(name.startswith(f"{space.drawn_place}.") for name in names)
        for graph in space.graphs(choice):
            nodes = {node.name for node in graph.nodes}
            assert nodes >= {end for edge in graph.edges for end in (edge.source, edge.target)}


@every_space
def test_unknown_options_are_refused(space: Space[Any]) -> None:
    with pytest.raises(ValueError, match="colour"):
        type(space).model_validate({"colour": 1})
